import { lazy, type ComponentType } from 'react';

type Owned = ComponentType<{ owner: { organisationId: number } }>;

// The lists of keys and webhooks belong to the account's pages.
const [loadKeys] = Object.values(import.meta.glob<{ Keys: Owned }>('../account/keys.tsx'));
const [loadWebhooks] = Object.values(import.meta.glob<{ Webhooks: Owned }>('../account/webhooks.tsx'));

/** The API keys of an organisation; undefined where these pages are not built in. */
export const Keys = loadKeys && lazy(async () => ({ default: (await loadKeys()).Keys }));

/** The webhooks of an organisation; undefined where these pages are not built in. */
export const Webhooks = loadWebhooks && lazy(async () => ({ default: (await loadWebhooks()).Webhooks }));
