import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';

/** What has become of the machine that runs the command with a tag. */
export type Asking =
  | { state: 'none' | 'expired' | 'approved' | 'forbidden' }
  | { state: 'waiting'; pending: Schemas['PendingEnrollment'] };

async function read(tag: string, signal: AbortSignal): Promise<Asking> {
  try {
    return { state: 'waiting', pending: await client.enrollment.pending({ tag }, { signal, retries: 0 }) };
  } catch (error) {
    if (isCode(error, 'not_found')) return { state: 'none' };
    if (isCode(error, 'enrollment_expired')) return { state: 'expired' };
    if (isCode(error, 'already_approved')) return { state: 'approved' };
    if (isCode(error, 'forbidden')) return { state: 'forbidden' };
    throw error;
  }
}

/** Asks every two seconds for the machine that runs the command with this tag, unless somebody else is to approve it. */
export function useAsking(tag: string, enabled: boolean): UseQueryResult<Asking> {
  return useQuery({
    queryKey: keys.askingByTag(tag),
    queryFn: ({ signal }) => read(tag, signal),
    enabled,
    retry: false,
    gcTime: 0,
    refetchInterval: ({ state }) => (state.data?.state === 'forbidden' ? false : state.error ? 10_000 : 2000),
  });
}
