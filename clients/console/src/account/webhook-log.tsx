import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Dialog, ErrorNote, Loaded, State, type Tone } from '../ui/index.js';
import { reasonIn, reasonsTexts } from './reasons.js';
import { webhooksTexts } from './webhooks-texts.js';

type Delivery = Schemas['WebhookDelivery'];

const tones: Readonly<Record<Schemas['WebhookDeliveryState'], Tone>> = { pending: '', delivered: 'good', failed: 'bad', dropped: 'bad' };

/** How many messages are shown: enough to see what goes wrong now. */
const shownDeliveries = 50;

/** The newest messages of a webhook, with what became of each. */
export function WebhookLog({ webhook, onClose }: { webhook: Schemas['Webhook']; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const reasons = useText(reasonsTexts);
  const format = useFormat();
  // A notice would be behind the dialog.
  const [said, setSaid] = useState<{ error?: unknown }>();
  const query = useQuery({
    queryKey: keys.newestDeliveries(webhook.id),
    queryFn: async ({ signal }) => {
      const { data, next } = await client.webhooks.deliveries(webhook.id, { limit: shownDeliveries }, { signal }).withResponse();
      return { items: data, more: Boolean(next) };
    },
    refetchInterval: 5000,
  });
  async function again({ id }: Delivery): Promise<void> {
    setSaid(undefined);
    try {
      await client.webhooks.redeliver(webhook.id, id);
      setSaid({});
      await query.refetch();
    } catch (error) {
      setSaid({ error });
    }
  }
  return (
    <Dialog title={t.logOf(webhook.name)} onClose={onClose}>
      <Loaded query={query}>
        {({ items, more }) =>
          items.length === 0 ? (
            <p className="faint">{t.noLog}</p>
          ) : (
            <>
              <ul className="account-log">
                {items.map((delivery) => (
                  <li key={delivery.id}>
                    <div>
                      <strong>{(t.events as Readonly<Record<string, string>>)[delivery.type] ?? delivery.type}</strong>{' '}
                      <time className="small faint" dateTime={delivery.createdAt}>
                        {format.dateTime(delivery.createdAt)}
                      </time>
                      <p>
                        <State tone={tones[delivery.state]}>{t.states[delivery.state]}</State>
                      </p>
                      <p className="small faint">
                        {[t.attempts(format.number(delivery.attempts)), delivery.error ? reasonIn(reasons, delivery.error) : delivery.status !== null && t.status(delivery.status), delivery.durationMs !== null && format.milliseconds(delivery.durationMs)]
                          .filter(Boolean)
                          .join(' · ')}
                      </p>
                    </div>
                    {delivery.type !== 'webhook.test' && (
                      <Button compact aria-label={t.redeliverLabel((t.events as Readonly<Record<string, string>>)[delivery.type] ?? delivery.type, format.dateTime(delivery.createdAt))} onClick={() => void again(delivery)}>
                        {t.redeliver}
                      </Button>
                    )}
                  </li>
                ))}
              </ul>
              {more && <p className="small faint">{t.newest}</p>}
            </>
          )
        }
      </Loaded>
      {said?.error !== undefined && <ErrorNote error={said.error} messages={{ conflict: t.isOff }} />}
      <p className="small faint" role="status">
        {said && said.error === undefined && t.redelivered}
      </p>
      <div className="row">
        <Button onClick={onClose}>{t.done}</Button>
      </div>
    </Dialog>
  );
}
