import { useQueryClient } from '@tanstack/react-query';
import { tunnelKeys, useLiveStatus } from '@eclitunnel/sdk/react';
import { useEffect } from 'react';
import { client } from '../lib/client.js';

/**
 * Asks for the session again when the stream of events has failed: with a session its stream
 * ends as well, and an open page need not wait until somebody clicks to learn of it.
 */
export function SessionWatch(): null {
  const queries = useQueryClient();
  const { error } = useLiveStatus();
  useEffect(() => {
    if (error !== undefined) void queries.invalidateQueries({ queryKey: tunnelKeys(client).session }, { cancelRefetch: false });
  }, [queries, error]);
  return null;
}
