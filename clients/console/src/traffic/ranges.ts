import type { Schemas } from '@eclitunnel/sdk';

type Resolution = Schemas['UsageResolution'];

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** The length of what one point of a chart stands for. Days and months are those of UTC, as the panel counts. */
export type Step = Resolution | 'month';

interface Span {
  step: Step;
  /** The resolution in which the panel is asked; months are sums of its days. */
  resolution: Resolution;
  /** How many steps a chart has, the last of which is still running. */
  steps: number;
}

const spans = {
  hour: { step: 'minute', resolution: 'minute', steps: 60 },
  evening: { step: 'minute', resolution: 'minute', steps: 360 },
  days: { step: 'hour', resolution: 'hour', steps: 48 },
  week: { step: 'hour', resolution: 'hour', steps: 168 },
  month: { step: 'day', resolution: 'day', steps: 30 },
  year: { step: 'month', resolution: 'day', steps: 12 },
} as const satisfies Record<string, Span>;

export type RangeName = keyof typeof spans;

/** The names of the ranges, as they are in addresses, the shortest first. */
export const rangeNames = Object.keys(spans) as RangeName[];

/** The range that an address names; anything else is two days. */
export function rangeOf(name: string | null): RangeName {
  return name !== null && Object.hasOwn(spans, name) ? (name as RangeName) : 'days';
}

export function spanOf(range: RangeName): Span {
  return spans[range];
}

/** The start of the step in which a time is, in milliseconds. */
export function stepStart(at: number, step: Step): number {
  if (step === 'month') {
    const date = new Date(at);
    return Date.UTC(date.getUTCFullYear(), date.getUTCMonth());
  }
  const length = { minute: minuteMs, hour: hourMs, day: dayMs }[step];
  return at - (at % length);
}

/** The start of the step that is `count` steps after (or before) the one that starts at `start`. */
export function stepAfter(start: number, step: Step, count = 1): number {
  if (step === 'month') {
    const date = new Date(start);
    return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + count);
  }
  return start + count * { minute: minuteMs, hour: hourMs, day: dayMs }[step];
}

/** The first moment of a range that ends in the step of `now`. */
export function rangeStart(range: RangeName, now: number): number {
  const { step, steps } = spans[range];
  return stepAfter(stepStart(now, step), step, 1 - steps);
}

/** Whether the clocks of a place change between two times: then an hour of a day comes twice, or not at all. */
export function clocksChange(from: number, to: number): boolean {
  return new Date(from).getTimezoneOffset() !== new Date(to).getTimezoneOffset();
}
