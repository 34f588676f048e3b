import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useIsAdmin } from '../session/session.js';
import type { Grouping } from './groups.js';

/** How long names are not read again, in milliseconds. Events tell of ports and devices. */
const staleTime = 60_000;

export interface Name {
  name: string;
  /** What else identifies it. */
  about?: string | undefined;
}

/** The names of what can be in a list of groups, by ID; `undefined` while they are not read. */
export type Names = ReadonlyMap<number | string, Name> | undefined;

async function every<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/**
 * Reads lists, a thousand names with each request, and not one name after the other: a
 * browser would note each that exists no more as an error of the page.
 */
export function useNames(by: Grouping): { allocations: Names; devices: Names; organisations: Names; users: Names } {
  const admin = useIsAdmin();
  const names = <T>({ data }: UseQueryResult<T[]>, of: (item: T) => [number | string, Name]): Names => data && new Map(data.map(of));
  const allocations = useQuery({ ...tunnelQueries(client).allocations(), staleTime, enabled: by === 'allocation' });
  const devices = useQuery({ ...tunnelQueries(client).devices(), staleTime, enabled: by === 'device' });
  const organisations = useQuery({
    queryKey: keys.allOrganisations,
    queryFn: ({ signal }) => every(client.organisations.all({}, { signal })),
    staleTime,
    enabled: by === 'owner' || by === 'organisation',
  });
  const users = useQuery({
    queryKey: keys.allUsers,
    queryFn: ({ signal }) => every(client.users.all({}, { signal })),
    staleTime,
    // Others see nobody's usage but their own and that of their organisations.
    enabled: by === 'owner' && admin,
  });
  return {
    allocations: names(allocations, ({ id, name, publicAddress }) => [id, name ? { name, about: publicAddress } : { name: publicAddress }]),
    devices: names(devices, ({ id, name }) => [id, { name }]),
    organisations: names(organisations, ({ id, name }) => [id, { name }]),
    users: names(users, ({ id, email }) => [id, { name: email }]),
  };
}
