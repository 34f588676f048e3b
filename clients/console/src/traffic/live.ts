import { useQueryClient } from '@tanstack/react-query';
import type { LiveUsage, TunnelEvent } from '@eclitunnel/sdk';
import { useTunnelEvents } from '@eclitunnel/sdk/react';
import { useCallback, useState } from 'react';
import { useNow } from '../lib/clock.js';
import { keys } from '../lib/keys.js';

/** How long an event tells what is now, in milliseconds: tunnel servers report each 10 seconds while there is traffic. */
const validMs = 25_000;
/** After this long without an event nothing is carried. */
const firstMs = 12_000;

interface Seen {
  usage: LiveUsage;
  /** When it came, by this machine's clock. */
  at: number;
}

export interface LiveSums {
  players: number;
  /** Bits per second. */
  toPlayers: number;
  fromPlayers: number;
}

/** What the allocations that `seen` is of carry together. */
export function sumLive(seen: Iterable<[number, Seen]>, now: number, selects: (allocationId: number) => boolean): LiveSums {
  const sums: LiveSums = { players: 0, toPlayers: 0, fromPlayers: 0 };
  for (const [id, { usage, at }] of seen) {
    if (now - at > validMs || !selects(id)) continue;
    sums.players += usage.players;
    if (usage.seconds === 0) continue;
    sums.toPlayers += (usage.downloadBytes * 8) / usage.seconds;
    sums.fromPlayers += (usage.uploadBytes * 8) / usage.seconds;
  }
  return sums;
}

/** What is carried now by the allocations that are selected, as events tell; undefined while nothing is known. */
export function useLiveSums(selects: (allocationId: number) => boolean): LiveSums | undefined {
  const queries = useQueryClient();
  const now = useNow();
  const [since] = useState(() => Date.now());
  const [seen, setSeen] = useState(() => {
    // Events that came while another page was open.
    const cached = queries.getQueryCache().findAll({ queryKey: keys.allLiveUsage });
    return new Map(cached.flatMap(({ state }): [number, Seen][] => (state.data ? [[(state.data as LiveUsage).allocationId, { usage: state.data as LiveUsage, at: state.dataUpdatedAt }]] : [])));
  });
  useTunnelEvents(
    useCallback((event: TunnelEvent) => {
      if (event.type !== 'usage') return;
      const at = Date.now();
      setSeen((old) => new Map([...old, ...event.usage.map((usage): [number, Seen] => [usage.allocationId, { usage, at }])]));
    }, []),
  );
  const known = now - since >= firstMs || [...seen.values()].some(({ at }) => now - at <= validMs);
  return known ? sumLive(seen, now, selects) : undefined;
}
