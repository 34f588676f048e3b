import { useQueryClient } from '@tanstack/react-query';
import { useLiveStatus } from '@eclitunnel/sdk/react';
import { keys } from '../lib/keys.js';
import { useEffect } from 'react';

/**
 * Asks for the session again when the stream of events has failed: with a session its stream
 * ends as well, and an open page need not wait until somebody clicks to learn of it.
 */
export function SessionWatch(): null {
  const queries = useQueryClient();
  const { error } = useLiveStatus();
  useEffect(() => {
    if (error !== undefined) void queries.invalidateQueries({ queryKey: keys.session }, { cancelRefetch: false });
  }, [queries, error]);
  return null;
}
