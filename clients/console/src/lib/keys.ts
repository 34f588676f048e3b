import { tunnelKeys } from '@eclitunnel/sdk/react';
import { client } from './client.js';

const sdk = tunnelKeys(client);
const root = sdk.all;

/** What a form changes, as it was read, with the version that the change is based on. */
type Edited = 'allocation' | 'device' | 'server' | 'organisation' | 'organisationRules' | 'webhook';

/** The lists that are read page by page. */
export type PagesName = 'allocations' | 'audit' | 'devices' | 'members' | 'organisations' | 'sessions' | 'users';

/**
 * The keys of all that is kept of the panel's answers: those of the SDK, and the console's own.
 * Two that are equal hold the same data, of the same shape. A shorter key stands for all that
 * begin with it. The panel's data of the person who is signed in is below `all`.
 */
export const keys = {
  ...sdk,

  /** How one can sign in, which is the same whoever asks. */
  providers: ['providers'] as const,
  /** The invitation of the link in this tab, which outlives a change of the person. */
  invitation: ['invitation'] as const,
  version: [...root, 'version'] as const,

  /** The pages of a list, whatever filters them. The members of each organisation are a list. */
  pages: (name: PagesName, of?: number) => [...root, 'pages', name, ...(of === undefined ? [] : [of])] as const,
  edited: (what: Edited, id: number | string) => [...root, 'edited', what, id] as const,
  overview: (name: 'devices' | 'ports' | 'players') => [...root, 'overview', name] as const,
  /** What is offered for a choice: the first of a list, by name. */
  offered: (name: 'clients' | 'servers' | 'organisations') => [...root, 'offered', name] as const,

  /** What asks to be approved, by the tag of its command or by its code. Device events do not have these read again. */
  askingByTag: (tag: string) => [...root, 'asking', 'tag', tag] as const,
  askingByCode: (code: string) => [...root, 'asking', 'code', code] as const,
  /** The terminal that asks to log in, by its code. */
  loggingIn: (code: string) => [...root, 'loggingIn', code] as const,

  account: [...root, 'account'] as const,
  /** The API keys of the caller or of an organisation. */
  apiKeys: (owner: object) => [...root, 'apiKeys', owner] as const,
  newestDeliveries: (webhookId: number) => [...sdk.webhookDeliveries(webhookId), 'newest'] as const,

  user: (id: number) => [...root, 'users', id] as const,
  /** The quota of a user with its version. */
  userQuota: (id: number) => [...root, 'users', id, 'quota'] as const,
  /** How much of the quota a user's deletion finds used. */
  userUse: (id: number) => [...root, 'users', id, 'use'] as const,
  allUsers: [...root, 'users', 'all'] as const,
  suggestedUsers: (q: string) => [...root, 'users', 'suggested', q] as const,

  organisation: (id: number) => [...root, 'organisations', id] as const,
  /** The quota of an organisation with its version. */
  organisationQuota: (id: number) => [...root, 'organisations', id, 'quota'] as const,
  organisationRules: (id: number) => [...root, 'organisations', id, 'rules'] as const,
  invitations: (id: number) => [...root, 'organisations', id, 'invitations'] as const,
  allOrganisations: [...root, 'organisations', 'all'] as const,
  /** The first 1,000 organisations. */
  manyOrganisations: [...root, 'organisations', 'many'] as const,

  portCounts: [...sdk.allocations, 'counts'] as const,
  /** How many ports a device has, or a tunnel server. */
  portCount: (of: object) => [...sdk.allocations, 'count', of] as const,
  newestPorts: (of: object) => [...sdk.allocations, 'newest', of] as const,
  /** The ports with one number of a device on a tunnel server. */
  twins: (deviceId: string, serverId: string, port: number) => [...sdk.allocations, 'twins', deviceId, serverId, port] as const,
  serverLoads: [...root, 'serverLoads'] as const,
  keptOut: (allocationId: number) => [...sdk.allocation(allocationId), 'keptOut'] as const,

  allLiveUsage: [...root, 'liveUsage'] as const,
  rangeUsage: (scope: object, range: string) => [...root, 'usage', 'range', scope, range] as const,
  usageGroups: (by: string, range: string) => [...root, 'usage', 'groups', by, range] as const,

  /** The settings with their version. */
  editedSettings: [...root, 'settings', 'edited'] as const,
  siteRules: [...root, 'settings', 'rules'] as const,
  signingKeys: [...root, 'signingKeys'] as const,
};
