import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from './client.js';
import { keys } from './keys.js';

/** The panel's own version. */
export function usePanelVersion(): UseQueryResult<Schemas['Version']> {
  return useQuery({ queryKey: keys.version, queryFn: ({ signal }) => client.service.version({ signal }), staleTime: 60_000 });
}
