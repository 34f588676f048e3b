import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useLiveStatus, useTunnelEvents } from '@eclitunnel/sdk/react';
import type { Allocation, Connection, Device, FullResult, TunnelEvent } from '@eclitunnel/sdk';
import { useCallback, useEffect, useRef } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';

/** The first items of a list, and whether there are more. */
export interface Some<T> {
  items: T[];
  more: boolean;
}

/** How many items of a list the overview looks at: as many as the panel returns at once. */
const limit = 1000;

/** From how many items on a list is read again less often. */
const many = 100;

/**
 * Reads the first page of a list, and again after events of the topic, so that a busy panel
 * is not asked for a long list each second.
 */
function useFirst<T>(name: Parameters<typeof keys.overview>[0], topic: string, read: (signal: AbortSignal) => Promise<FullResult<T[]>>): UseQueryResult<Some<T>> {
  const queries = useQueryClient();
  const queryKey = keys.overview(name);
  const { live } = useLiveStatus();
  const result = useQuery({
    queryKey,
    queryFn: async ({ signal }) => {
      const { data, next } = await read(signal);
      return { items: data, more: next !== undefined };
    },
    staleTime: live ? 60_000 : 0,
    refetchInterval: live ? 60_000 : 15_000,
  });
  const restMs = (result.data?.items.length ?? 0) < many ? 1000 : 15_000;
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  useTunnelEvents(
    useCallback(
      ({ type }: TunnelEvent) => {
        if (!type.startsWith(`${topic}.`)) return;
        timer.current ??= setTimeout(() => {
          timer.current = undefined;
          void queries.invalidateQueries({ queryKey: keys.overview(name) }, { cancelRefetch: false });
        }, restMs);
      },
      [queries, name, topic, restMs],
    ),
  );
  return result;
}

export function useOverviewDevices(): UseQueryResult<Some<Device>> {
  return useFirst('devices', 'device', (signal) => client.devices.list({ limit }, { signal }).withResponse());
}

export function useOverviewPorts(): UseQueryResult<Some<Allocation>> {
  return useFirst('ports', 'allocation', (signal) => client.allocations.list({ limit }, { signal }).withResponse());
}

export function useOverviewPlayers(): UseQueryResult<Some<Connection>> {
  return useFirst('players', 'connection', (signal) => client.connections.list({ limit }, { signal }).withResponse());
}
