import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useCallback } from 'react';
import type { Allocation, Device, Organisation } from '@eclitunnel/sdk';
import { tunnelQueries, useBulkAllocations, useDeleteAllocation, useLiveUsage, useUpdateAllocation } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { useNotices } from '../ui/index.js';
import { texts } from './texts.js';

/** How many devices, tunnel servers or organisations are offered in a list; a search finds the others. */
const offered = 200;

/** The devices that can have ports, by name; the first 200 of them. */
export function useClients(): UseQueryResult<Device[]> {
  return useQuery({
    queryKey: keys.offered('clients'),
    queryFn: ({ signal }) => client.devices.list({ kind: 'client', approved: true, sort: 'name', limit: offered }, { signal }),
    staleTime: 30_000,
  });
}

/** The tunnel servers that the user may see, by name. */
export function useServers(): UseQueryResult<Device[]> {
  return useQuery({
    queryKey: keys.offered('servers'),
    queryFn: ({ signal }) => client.devices.list({ kind: 'server', approved: true, sort: 'name', limit: offered }, { signal }),
    staleTime: 30_000,
  });
}

/** The organisations that the user may see, by name, with the user's role in each. */
export function useOrganisations(): UseQueryResult<Organisation[]> {
  return useQuery({
    queryKey: keys.offered('organisations'),
    queryFn: ({ signal }) => client.organisations.list({ sort: 'name', limit: offered }, { signal }),
    staleTime: 60_000,
  });
}

/**
 * Returns a function that says whether the user may change a device and its ports;
 * undefined while that is not known.
 */
export function useMayManage(): (device: Device | undefined) => boolean | undefined {
  const user = useUser();
  const admin = useIsAdmin();
  const { data: organisations, isPending } = useOrganisations();
  return useCallback(
    (device) => {
      if (admin) return true;
      if (!device) return undefined;
      if (device.ownerId === user.id) return true;
      if (device.organisationId !== null && isPending) return undefined;
      const role = organisations?.find(({ id }) => id === device.organisationId)?.role;
      return role === 'owner' || role === 'admin';
    },
    [admin, user.id, organisations, isPending],
  );
}

/** A device of which perhaps a list has been read already; nothing is read for an empty ID. */
export function useKnownDevice(id: string): Device | undefined {
  const known = useClients();
  const listed = known.data?.find((device) => device.id === id);
  const one = useQuery({ ...tunnelQueries(client).device(id), enabled: id !== '' && !listed && !known.isPending, staleTime: 60_000 }).data;
  return listed ?? one;
}

/** Tunnel servers report what carries something every 10 seconds; what is older says nothing any more, in milliseconds. */
const freshMs = 35_000;

/** The number of players of an allocation now; undefined if nothing has told it lately. */
export function usePlayers(id: number): number | undefined {
  const now = useNow(5);
  const usage = useLiveUsage(id);
  return usage && now - Date.parse(usage.at) < freshMs ? usage.players : undefined;
}

/** Returns a function that reads the pages of allocations again. */
export function useRereadPages(): () => Promise<void> {
  const queries = useQueryClient();
  return useCallback(() => queries.invalidateQueries({ queryKey: keys.pages('allocations') }), [queries]);
}

/** What can be done with allocations, with a notice that says so. */
export function useActs() {
  const t = useText(texts);
  const { notify } = useNotices();
  const reread = useRereadPages();
  const update = useUpdateAllocation();
  const remove = useDeleteAllocation();
  const bulk = useBulkAllocations();
  const named = ({ name, publicAddress }: Allocation): string => name || publicAddress;
  const enable = async (id: number, enabled: boolean): Promise<void> => {
    await update.mutateAsync({ id, body: { enabled } });
    await reread();
  };
  return {
    async pause(allocation: Allocation): Promise<void> {
      await enable(allocation.id, false);
      notify(t.paused(named(allocation)), () => enable(allocation.id, true));
    },
    async resume(allocation: Allocation): Promise<void> {
      await enable(allocation.id, true);
      notify(t.resumed(named(allocation)));
    },
    async remove(allocation: Allocation): Promise<void> {
      await remove.mutateAsync(allocation.id);
      await reread();
      notify(t.deleted(named(allocation)));
    },
    /** Carries out one act on many; the result says of each whether it was done. */
    async many(action: 'pause' | 'resume' | 'delete', ids: number[]) {
      const { results } = await bulk.mutateAsync({ action, ids });
      await reread();
      return results;
    },
  };
}
