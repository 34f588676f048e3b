import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { tunnelKeys } from '@eclitunnel/sdk/react';
import { client } from './client.js';

/** The panel's own version. */
export function usePanelVersion(): UseQueryResult<Schemas['Version']> {
  return useQuery({ queryKey: [...tunnelKeys(client).all, 'version'], queryFn: ({ signal }) => client.service.version({ signal }), staleTime: 60_000 });
}
