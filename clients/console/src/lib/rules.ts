import { useQuery } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { tunnelKeys } from '@eclitunnel/sdk/react';
import { client } from './client.js';

/** The rules that the site's settings hold, for admins; undefined for others, and until they are read. */
export function useSiteRules(admin: boolean): Schemas['RuleSettings'] | undefined {
  return useQuery({
    // Below the key of the settings: who changes those has this read again.
    queryKey: [...tunnelKeys(client).all, 'settings', 'rules'],
    queryFn: ({ signal }) => client.settings.get({ signal }).then(({ rules }) => rules),
    enabled: admin,
    retry: false,
  }).data;
}
