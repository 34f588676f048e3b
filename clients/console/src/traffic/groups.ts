import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { addUsage, isUsed, type Sums } from './points.js';
import { rangeStart, spanOf, type RangeName } from './ranges.js';
import { freshMs } from './usage.js';

type Series = Schemas['UsageSeries'];

/** What the page of all traffic can be grouped by. */
export const groupings = ['allocation', 'device', 'owner', 'organisation'] as const;
export type Grouping = (typeof groupings)[number];

/** Usage of one group: a port, a device, an owner or an organisation. */
export interface Group extends Pick<Series, 'allocationId' | 'deviceId' | 'userId' | 'organisationId'> {
  key: string;
  sums: Sums;
}

/** The grouping that an address names; anything else is by port. */
export function groupingOf(name: string | null): Grouping {
  return groupings.find((one) => one === name) ?? 'allocation';
}

/** The groups of several answers together, those with most bytes first. */
export function rank(series: readonly Series[]): Group[] {
  const groups = new Map<string, Group>();
  for (const { allocationId, deviceId, userId, organisationId, totals } of series) {
    const key = [allocationId, deviceId, userId, organisationId].join(' ');
    const old = groups.get(key);
    groups.set(key, { key, allocationId, deviceId, userId, organisationId, sums: old ? addUsage(old.sums, totals) : totals });
  }
  const bytes = ({ sums }: Group): number => sums.downloadBytes + sums.uploadBytes;
  return [...groups.values()].filter(({ sums }) => isUsed(sums)).sort((a, b) => bytes(b) - bytes(a) || a.key.localeCompare(b.key));
}

/** How often a time whose answer would be too large is halved. */
const maxHalvings = 3;

/** Reads the usage of a time by group; where that has more points than the panel answers with, in parts. */
async function readSeries(by: Grouping, resolution: Schemas['UsageResolution'], from: number, to: number, signal: AbortSignal, halvings = maxHalvings): Promise<Series[]> {
  try {
    const { series } = await client.usage.get({ by, resolution, from: new Date(from).toISOString(), to: new Date(to).toISOString() }, { signal });
    return series;
  } catch (error) {
    const unit = { minute: 60_000, hour: 3_600_000, day: 86_400_000 }[resolution];
    // A part begins with a whole minute, hour or day, so that none is in two.
    const middle = from + Math.floor((to - from) / unit / 2) * unit;
    if (!isCode(error, 'invalid_request') || halvings === 0 || middle <= from) throw error;
    return [
      ...(await readSeries(by, resolution, from, middle, signal, halvings - 1)),
      ...(await readSeries(by, resolution, middle, to, signal, halvings - 1)),
    ];
  }
}

/** The groups of all usage that the caller may see, those with most bytes first. */
export function useGroups(by: Grouping, range: RangeName) {
  return useQuery({
    queryKey: keys.usageGroups(by, range),
    queryFn: async ({ signal }) => {
      const now = Date.now();
      const groups = rank(await readSeries(by, spanOf(range).resolution, rangeStart(range, now), now, signal));
      return { by, range, groups };
    },
    placeholderData: keepPreviousData,
    refetchInterval: freshMs(range),
  });
}
