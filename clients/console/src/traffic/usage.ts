import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { TunnelEvent } from '@eclitunnel/sdk';
import { useTunnelEvents } from '@eclitunnel/sdk/react';
import { useCallback } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useQueryParameters } from '../lib/url.js';
import { fillSlots, type Slot } from './points.js';
import { rangeOf, rangeStart, spanOf, type RangeName, type Step } from './ranges.js';

/** Whose usage: of a port, of a device's, of an organisation's devices, or all that the caller may see. */
export type Scope = { allocationId: number } | { deviceId: string } | { organisationId: number } | Record<string, never>;

/** The usage of a range, with what it is of: while another one is read, that of before stays. */
export interface RangeUsage {
  range: RangeName;
  step: Step;
  slots: Slot[];
}

/** The range that the page's address names. */
export function useRange(): RangeName {
  const [parameters] = useQueryParameters();
  return rangeOf(parameters.get('range'));
}

/** How often the usage of a range is read again, in milliseconds: minutes change while one looks. */
export function freshMs(range: RangeName): number {
  return spanOf(range).step === 'minute' ? 15_000 : 60_000;
}

/** Whether nothing was carried in a range. */
function isEmpty({ slots }: RangeUsage): boolean {
  return slots.every(({ joins, downloadBytes, uploadBytes }) => joins + downloadBytes + uploadBytes === 0);
}

export function useRangeUsage(scope: Scope, range: RangeName) {
  const { step, resolution } = spanOf(range);
  const queries = useQueryClient();
  const queryKey = keys.rangeUsage(scope, range);
  useTunnelEvents(
    useCallback(
      (event: TunnelEvent) => {
        // Who waits for the first player need not wait for the next reading as well.
        const shown = queries.getQueryData<RangeUsage>(queryKey);
        if (event.type === 'usage' && shown && isEmpty(shown)) void queries.invalidateQueries({ queryKey }, { cancelRefetch: false });
      },
      // The key is made anew on each rendering; what it stands for is in these.
      [queries, JSON.stringify(scope), range],
    ),
  );
  return useQuery<RangeUsage>({
    queryKey,
    queryFn: async ({ signal }) => {
      const from = rangeStart(range, Date.now());
      const { series, to } = await client.usage.get({ ...scope, by: 'none', resolution, from: new Date(from).toISOString() }, { signal });
      return { range, step, slots: fillSlots(series[0]?.points ?? [], step, from, Date.parse(to)) };
    },
    // What is of another port or device must not stand here meanwhile.
    placeholderData: (old, query) => (JSON.stringify(query?.queryKey.at(-2)) === JSON.stringify(scope) ? old : undefined),
    refetchInterval: freshMs(range),
  });
}
