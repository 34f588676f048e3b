import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useErrorNotice } from '../lib/error-notice.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Button, Dialog, Loaded, State, useNotices, type Tone } from '../ui/index.js';
import { webhooksTexts } from './webhooks-texts.js';

type Delivery = Schemas['WebhookDelivery'];

const tones: Readonly<Record<Schemas['WebhookDeliveryState'], Tone>> = { pending: '', delivered: 'good', failed: 'bad', dropped: 'bad' };

/** The newest messages of a webhook, with what became of each. */
export function WebhookLog({ webhook, onClose }: { webhook: Schemas['Webhook']; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const format = useFormat();
  const { notify } = useNotices();
  const attempt = useErrorNotice();
  const query = useQuery({ ...tunnelQueries(client).webhookDeliveries(webhook.id), refetchInterval: 5000 });
  const again = ({ id }: Delivery) =>
    attempt(
      async () => {
        await client.webhooks.redeliver(webhook.id, id);
        await query.refetch();
        notify(t.redelivered);
      },
      { conflict: t.isOff },
    );
  return (
    <Dialog title={t.logOf(webhook.name)} onClose={onClose}>
      <Loaded query={query}>
        {(items) =>
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
                        {[t.attempts(format.number(delivery.attempts)), delivery.error ?? (delivery.status !== null && t.status(delivery.status)), delivery.durationMs !== null && format.milliseconds(delivery.durationMs)]
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
              <p className="small faint">{t.newest}</p>
            </>
          )
        }
      </Loaded>
      <div className="row">
        <Button onClick={onClose}>{t.done}</Button>
      </div>
    </Dialog>
  );
}
