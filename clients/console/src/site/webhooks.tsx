import { lazy, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { PageHead } from '../ui/index.js';
import { texts } from './texts.js';

const Webhooks = lazy(async () => ({ default: (await import('../account/webhooks.js')).Webhooks }));

/** The webhooks that are told of everything on the panel. */
export default function SiteWebhooks(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.webhooks.title} about={t.webhooks.about} />
      <Webhooks owner={{ site: true }} />
    </>
  );
}
