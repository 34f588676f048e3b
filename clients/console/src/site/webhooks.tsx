import { lazy, type ComponentType, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { PageHead } from '../ui/index.js';
import { texts } from './texts.js';

type Webhooks = ComponentType<{ owner: { site: true } }>;

// The list of webhooks belongs to the account's pages.
const [load] = Object.values(import.meta.glob<{ Webhooks: Webhooks }>('../account/webhooks.tsx'));
const List = load && lazy(async () => ({ default: (await load()).Webhooks }));

export const hasWebhooks = List !== undefined;

/** The webhooks that are told of everything on the panel. */
export function SiteWebhooks(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.webhooks.title} about={t.webhooks.about} />
      {List && <List owner={{ site: true }} />}
    </>
  );
}
