import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Schemas } from '@eclitunnel/sdk';
import { rank } from '../src/traffic/groups.js';
import { sumLive } from '../src/traffic/live.js';
import { fillSlots, noUsage, total } from '../src/traffic/points.js';
import { clocksChange, rangeNames, rangeOf, rangeStart, spanOf, stepAfter } from '../src/traffic/ranges.js';
import { refusalsOf } from '../src/traffic/refusal-list.js';

const at = (text: string): number => Date.parse(text);
const point = (text: string, usage: Partial<Schemas['UsageSums']>): Schemas['UsagePoint'] => ({ ...noUsage, ...usage, at: text });

describe('fillSlots', () => {
  it('has zero where the panel leaves a time out, and the running step last', () => {
    const slots = fillSlots([point('2026-03-01T10:01:00Z', { downloadBytes: 7, joins: 1, peakPlayers: 2 })], 'minute', at('2026-03-01T10:00:00Z'), at('2026-03-01T10:03:20Z'));
    expect(slots.map((slot) => [new Date(slot.at).toISOString().slice(11, 16), slot.downloadBytes])).toEqual([['10:00', 0], ['10:01', 7], ['10:02', 0], ['10:03', 0]]);
    expect(total(slots)).toEqual({ ...noUsage, downloadBytes: 7, joins: 1, peakPlayers: 2 });
  });

  it('ends before a step that has not begun', () => {
    expect(fillSlots([], 'hour', at('2026-03-01T10:00:00Z'), at('2026-03-01T12:00:00Z'))).toHaveLength(2);
  });

  it('adds the days of a month up, and keeps the most players of any', () => {
    const days = [point('2026-01-31T00:00:00Z', { uploadBytes: 1, peakPlayers: 3 }), point('2026-02-01T00:00:00Z', { uploadBytes: 2, peakPlayers: 9 }), point('2026-02-28T00:00:00Z', { uploadBytes: 4, peakPlayers: 5 })];
    const slots = fillSlots(days, 'month', at('2026-01-01T00:00:00Z'), at('2026-03-02T00:00:00Z'));
    expect(slots.map(({ at, uploadBytes, peakPlayers }) => [new Date(at).toISOString().slice(0, 7), uploadBytes, peakPlayers])).toEqual([['2026-01', 1, 3], ['2026-02', 6, 9], ['2026-03', 0, 0]]);
  });
});

describe('ranges', () => {
  it.each(rangeNames)('%s has as many steps as it says, whenever it is', (name) => {
    const { step, steps } = spanOf(name);
    // Also in a month of 28 days, at the end of one of 31, and on a leap day.
    for (const now of ['2026-02-28T23:59:59Z', '2026-03-31T12:30:30Z', '2028-02-29T00:00:01Z', '2026-01-01T00:00:00.001Z'].map(at)) {
      const slots = fillSlots([], step, rangeStart(name, now), now);
      expect(slots).toHaveLength(steps);
      const last = slots.at(-1)?.at ?? 0;
      expect(last).toBeLessThanOrEqual(now);
      expect(stepAfter(last, step)).toBeGreaterThan(now);
    }
  });

  it('are what the address names, and two days if that is nothing', () => {
    expect([rangeOf('year'), rangeOf(null), rangeOf('toString')]).toEqual(['year', 'days', 'days']);
  });
});

describe('where clocks change', () => {
  const before = process.env['TZ'];
  beforeEach(() => {
    process.env['TZ'] = 'Europe/Berlin';
  });
  afterEach(() => {
    if (before === undefined) delete process.env['TZ'];
    else process.env['TZ'] = before;
  });

  it('two days have 48 hours, each one hour after the other', () => {
    // On 2026-03-29 an hour is missing in Berlin, on 2026-10-25 one comes twice.
    for (const now of ['2026-03-29T12:00:00Z', '2026-10-25T12:00:00Z'].map(at)) {
      const slots = fillSlots([], 'hour', rangeStart('days', now), now + 1);
      expect(slots).toHaveLength(48);
      expect(new Set(slots.map(({ at }, i) => at - i * 3_600_000)).size).toBe(1);
    }
  });

  it('the night is known', () => {
    expect(clocksChange(at('2026-10-25T00:30:00Z'), at('2026-10-25T01:30:00Z'))).toBe(true);
    expect(clocksChange(at('2026-10-25T02:30:00Z'), at('2026-10-26T02:30:00Z'))).toBe(false);
  });
});

describe('groups', () => {
  it('are ranked by bytes; parts of a time are added up, and who carried nothing is left out', () => {
    const series = (allocationId: number, totals: Partial<Schemas['UsageSums']>): Schemas['UsageSeries'] => ({ allocationId, deviceId: null, userId: null, organisationId: null, totals: { ...noUsage, ...totals }, points: [] });
    const groups = rank([series(1, { downloadBytes: 5, peakPlayers: 4 }), series(2, { uploadBytes: 8 }), series(3, {}), series(1, { uploadBytes: 6, peakPlayers: 2, joins: 1 })]);
    expect(groups.map(({ allocationId, sums }) => [allocationId, sums.downloadBytes + sums.uploadBytes, sums.peakPlayers])).toEqual([[1, 11, 4], [2, 8, 0]]);
  });
});

describe('sumLive', () => {
  const usage = (allocationId: number, players: number, seconds = 10) => ({ allocationId, players, joins: 0, downloadBytes: 1250, uploadBytes: 125, downloadDatagrams: 0, uploadDatagrams: 0, seconds });

  it('adds up what was reported lately of those selected, in bits per second', () => {
    const seen = new Map([[1, { usage: usage(1, 3), at: 1000 }], [2, { usage: usage(2, 4), at: 9000 }], [3, { usage: usage(3, 5), at: 9000 }], [4, { usage: usage(4, 1, 0), at: 9000 }]]);
    expect(sumLive(seen, 30_000, (id) => id !== 3)).toEqual({ players: 5, toPlayers: 1000, fromPlayers: 100 });
  });
});

describe('refusalsOf', () => {
  it('keeps the order of what is known, and shows what is new', () => {
    expect(refusalsOf({ later: 1, limit: 2 }, { denied: 3, rate: 0 }, ['denied', 'limit', 'rate'])).toEqual([
      { reason: 'denied', players: 0, datagrams: 3 },
      { reason: 'limit', players: 2, datagrams: 0 },
      { reason: 'later', players: 1, datagrams: 0 },
    ]);
  });
});
