import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import type { Organisation, Schemas } from '@eclitunnel/sdk';
import { useContext } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { SessionContext, useIsAdmin } from '../session/session.js';

export type Role = Schemas['OrganisationRole'];

/** The roles, from the one that may least to the one that may most. */
export const roles = ['member', 'admin', 'owner'] as const;

export function useOrganisation(id: number): UseQueryResult<Organisation> {
  return useQuery({ queryKey: keys.organisation(id), queryFn: ({ signal }) => client.organisations.get(id, { signal }) });
}

/** What the user may do in an organisation. */
export interface Rights {
  /** Change its name and rules, invite and remove members, and read its audit trail. */
  manage: boolean;
  /** Make and unmake owners, and delete it. */
  own: boolean;
}

export function useRights({ role }: Pick<Organisation, 'role'>): Rights {
  const admin = useIsAdmin();
  return { manage: admin || role === 'owner' || role === 'admin', own: admin || role === 'owner' };
}

/** Whether the user may create organisations. */
export function useMayCreate(): boolean {
  const admin = useIsAdmin();
  return useContext(SessionContext)?.organisations?.creators === 'everyone' || admin;
}

/** Returns a function that has what is shown of organisations, and who is in them, read again. */
export function useChanged(): () => Promise<unknown> {
  const queries = useQueryClient();
  // Rights on devices and ports follow the role, and their lists the organisations.
  return () => queries.invalidateQueries({ queryKey: keys.all });
}
