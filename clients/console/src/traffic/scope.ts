import { useMemo } from 'react';
import { useQuery } from '@tanstack/react-query';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useUser } from '../session/session.js';
import type { Scope } from './usage.js';

/** The query of the connections of a port or device: the same everywhere, so that they are read once. */
export function connectionQuery(scope: Scope): { allocationId?: number; deviceId?: string; limit: number } {
  return 'allocationId' in scope ? { allocationId: scope.allocationId, limit: 1000 } : 'deviceId' in scope ? { deviceId: scope.deviceId, limit: 1000 } : { limit: 1000 };
}

/** The IDs of the allocations of a scope; undefined stands for all that the caller may see. */
export function usePortsOf(scope: Scope): ReadonlySet<number> | undefined {
  const filter = 'deviceId' in scope ? { deviceId: scope.deviceId } : 'organisationId' in scope ? { organisationId: scope.organisationId } : undefined;
  const { data } = useQuery({ ...tunnelQueries(client).allocations(filter), enabled: filter !== undefined });
  const own = 'allocationId' in scope ? scope.allocationId : undefined;
  const filtered = filter !== undefined;
  return useMemo(() => (own !== undefined ? new Set([own]) : filtered ? new Set(data?.map(({ id }) => id)) : undefined), [own, filtered, data]);
}

/**
 * Whether the caller manages a device: its owner, an owner or admin of its organisation, or an
 * admin of the panel. Undefined while that is not known.
 */
export function useManages(deviceId: string | undefined): boolean | undefined {
  const user = useUser();
  const device = useQuery({ ...tunnelQueries(client).device(deviceId ?? ''), enabled: deviceId !== undefined }).data;
  const organisationId = device?.organisationId ?? undefined;
  const organisation = useQuery({
    queryKey: keys.organisation(organisationId ?? 0),
    queryFn: ({ signal }) => client.organisations.get(organisationId ?? 0, { signal }),
    enabled: organisationId !== undefined && user.role !== 'admin',
    staleTime: 60_000,
  }).data;
  if (user.role === 'admin') return true;
  if (!device) return undefined;
  if (organisationId === undefined) return device.ownerId === user.id;
  return organisation && (organisation.role === 'owner' || organisation.role === 'admin');
}
