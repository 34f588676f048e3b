import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useCallback } from 'react';
import type { Device, TunnelEvent } from '@eclitunnel/sdk';
import { useTunnelEvents } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';

/** Up to how many ports are counted for the list. */
const counted = 1000;

/**
 * How many ports each device has, by its ID: those of a machine, and those on a tunnel
 * server. Undefined while that is not known, and where there are more than 1,000 in all.
 */
export function usePortCounts(): ReadonlyMap<string, number> | undefined {
  const queries = useQueryClient();
  const queryKey = keys.portCounts;
  useTunnelEvents(
    useCallback(
      (event: TunnelEvent) => {
        if (event.type === 'allocation.created' || event.type === 'allocation.deleted') void queries.invalidateQueries({ queryKey: keys.portCounts }, { cancelRefetch: false });
      },
      [queries],
    ),
  );
  return useQuery({
    queryKey,
    queryFn: async ({ signal }): Promise<ReadonlyMap<string, number> | null> => {
      const { data, next } = await client.allocations.list({ limit: counted }, { signal }).withResponse();
      if (next) return null;
      const counts = new Map<string, number>();
      for (const { deviceId, serverId } of data) for (const id of [deviceId, serverId]) counts.set(id, (counts.get(id) ?? 0) + 1);
      return counts;
    },
    staleTime: 30_000,
  }).data ?? undefined;
}

/** A device as it was read, and the version that a change of it is based on. */
export interface Version {
  device: Device;
  etag: string | undefined;
}

export async function readVersion(id: string, signal?: AbortSignal): Promise<Version> {
  const { data, etag } = await client.devices.get(id, { signal }).withResponse();
  return { device: data, etag };
}

/** Reads a device for a form, once: what is being edited does not change under the person's hands. */
export function useVersion(id: string): UseQueryResult<Version> {
  return useQuery({
    queryKey: keys.edited('device', id),
    queryFn: ({ signal }) => readVersion(id, signal),
    staleTime: Infinity,
    gcTime: 0,
    refetchOnReconnect: false,
  });
}

/** Returns a function that reads the pages of devices again. */
export function useRereadPages(): () => Promise<void> {
  const queries = useQueryClient();
  return useCallback(() => queries.invalidateQueries({ queryKey: keys.pages('devices') }), [queries]);
}
