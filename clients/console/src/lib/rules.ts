import { useQuery } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from './client.js';
import { keys } from './keys.js';

/** The rules that the site's settings hold, for admins; undefined for others, and until they are read. */
export function useSiteRules(admin: boolean): Schemas['RuleSettings'] | undefined {
  return useQuery({
    queryKey: keys.siteRules,
    queryFn: ({ signal }) => client.settings.get({ signal }).then(({ rules }) => rules),
    enabled: admin,
    retry: false,
  }).data;
}
