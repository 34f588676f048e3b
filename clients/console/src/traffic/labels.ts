import { useMemo } from 'react';
import { useLanguage, type Language } from '../lib/language.js';
import type { Slot } from './points.js';
import { clocksChange, stepAfter, type Step } from './ranges.js';

const dayMs = 86_400_000;

/** Functions that write the times of a chart. Hours are those of the person's clock, days and months those of UTC. */
function labels(language: Language, step: Step) {
  const write = (options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat =>
    new Intl.DateTimeFormat(language, step === 'day' || step === 'month' ? { ...options, timeZone: 'UTC' } : options);
  const time = write({ hour: 'numeric', minute: '2-digit' });
  const day = write({ day: 'numeric', month: 'short' });
  const month = write({ month: 'short', year: '2-digit' });
  const wholeDay = write({ weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' });
  const wholeMonth = write({ month: 'long', year: 'numeric' });
  const moment = write({ day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' });
  const zoned = write({ day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit', timeZoneName: 'short' });

  return {
    time: (at: number) => time.format(at),
    /** The label of a tick of an axis whose ticks are `apart` milliseconds from each other. */
    tick(at: number, apart: number): string {
      if (step === 'month') return month.format(at);
      const date = new Date(at);
      const midnight = step === 'day' || (date.getHours() === 0 && date.getMinutes() === 0);
      return midnight || apart >= dayMs ? day.format(at) : time.format(at);
    },
    /** The time of a slot, as the heading of its row. */
    slot({ at }: Slot): string {
      if (step === 'month') return wholeMonth.format(at);
      if (step === 'day') return wholeDay.format(at);
      // In the night in which clocks go back, an hour comes twice.
      const shifting = clocksChange(at - dayMs / 12, at + dayMs / 12);
      if (step === 'minute' || shifting) return (shifting ? zoned : moment).format(at);
      return moment.formatRange(at, stepAfter(at, step));
    },
  };
}

export type Labels = ReturnType<typeof labels>;

export function useLabels(step: Step): Labels {
  const { language } = useLanguage();
  return useMemo(() => labels(language, step), [language, step]);
}
