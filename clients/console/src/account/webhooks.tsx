import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useErrorNotice } from '../lib/error-notice.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Menu, MenuItem, MenuLine, State, Table, useNotices } from '../ui/index.js';
import { reasonIn, reasonsTexts } from './reasons.js';
import { DeleteOne, ShortList } from './short-list.js';
import { WebhookForm } from './webhook-form.js';
import { WebhookLog } from './webhook-log.js';
import { Rotate, WebhookSecret } from './webhook-secret.js';
import { webhooksTexts } from './webhooks-texts.js';
import './account.css';

type Webhook = Schemas['Webhook'];

/** About whose devices they send messages. */
export type WebhooksOwner = { site: true } | { organisationId: number } | { userId: number };

type Open = { act: 'create' } | { act: 'edit' | 'log' | 'rotate' | 'delete'; of: Webhook } | { act: 'secret'; secret: string };

/** The webhooks of the person, of an organisation that they manage, or of the whole panel. */
export function Webhooks({ owner }: { owner: WebhooksOwner }): ReactNode {
  const t = useText(webhooksTexts);
  const queries = useQueryClient();
  const query = useQuery(tunnelQueries(client).webhooks(owner));
  const [open, setOpen] = useState<Open>();
  const close = () => setOpen(undefined);
  const reread = () => queries.invalidateQueries({ queryKey: keys.webhooks });
  return (
    <>
      <ShortList query={query} texts={t} onCreate={() => setOpen({ act: 'create' })}>
        {(items) => <List items={items} onOpen={setOpen} onChanged={reread} />}
      </ShortList>
      {open?.act === 'create' && <WebhookForm owner={owner} onChanged={reread} onClose={(secret) => setOpen(secret ? { act: 'secret', secret } : undefined)} />}
      {open?.act === 'edit' && <WebhookForm owner={owner} id={open.of.id} onChanged={reread} onClose={close} />}
      {open?.act === 'secret' && <WebhookSecret secret={open.secret} onClose={close} />}
      {open?.act === 'log' && <WebhookLog webhook={open.of} onClose={close} />}
      {open?.act === 'rotate' && <Rotate webhook={open.of} onClose={close} />}
      {open?.act === 'delete' && <DeleteOne texts={t} name={open.of.name} onDelete={() => client.webhooks.delete(open.of.id).then(reread)} onClose={close} />}
    </>
  );
}

function List({ items, onOpen, onChanged }: { items: readonly Webhook[]; onOpen(open: Open): void; onChanged(): Promise<unknown> }): ReactNode {
  const t = useText(webhooksTexts);
  const reasons = useText(reasonsTexts);
  const { notify } = useNotices();
  const attempt = useErrorNotice();
  const [testing, setTesting] = useState<number>();

  async function test({ id }: Webhook): Promise<void> {
    setTesting(id);
    await attempt(async () => {
      const { state, error, status } = await client.webhooks.test(id);
      notify(state === 'delivered' ? t.tested : t.testFailed(error ? reasonIn(reasons, error) : status === null ? t.noAnswer : t.status(status)));
      await onChanged();
    });
    setTesting(undefined);
  }

  const turn = (webhook: Webhook, enabled: boolean): Promise<void> =>
    attempt(async () => {
      await client.webhooks.update(webhook.id, { enabled });
      await onChanged();
      notify(enabled ? t.enabled(webhook.name) : t.disabledNow(webhook.name), enabled ? undefined : () => turn(webhook, true));
    });

  return (
    <Table
      caption={t.title}
      items={items}
      keyOf={({ id }) => id}
      columns={[
        {
          title: t.name,
          cell: ({ name, url, format }) => (
            <div>
              <strong>{name}</strong>
              <p className="account-url small faint">
                {t.formats[format]}: {url}
              </p>
            </div>
          ),
        },
        {
          title: t.eventsTitle,
          cell: ({ events }) => (
            <ul className="account-events">
              {events.map((event) => (
                <li key={event}>{t.events[event]}</li>
              ))}
            </ul>
          ),
        },
        { title: t.state, cell: (webhook) => <WebhookState webhook={webhook} /> },
        {
          title: '',
          kind: 'actions',
          cell: (webhook) => (
            <div className="account-acts">
              <Button compact busy={testing === webhook.id} aria-label={`${t.test}: ${webhook.name}`} onClick={() => void test(webhook)}>
                {t.test}
              </Button>
              <Menu label={webhook.name}>
                <MenuItem onSelect={() => onOpen({ act: 'log', of: webhook })}>{t.log}</MenuItem>
                <MenuItem onSelect={() => onOpen({ act: 'edit', of: webhook })}>{t.edit}</MenuItem>
                <MenuItem onSelect={() => void turn(webhook, !webhook.enabled)}>{webhook.enabled ? t.disable : t.enable}</MenuItem>
                <MenuItem onSelect={() => onOpen({ act: 'rotate', of: webhook })}>{t.rotate}</MenuItem>
                <MenuLine />
                <MenuItem bad onSelect={() => onOpen({ act: 'delete', of: webhook })}>
                  {t.delete}
                </MenuItem>
              </Menu>
            </div>
          ),
        },
      ]}
    />
  );
}

function WebhookState({ webhook: { enabled, disabledReason, failingSince, lastDelivery } }: { webhook: Webhook }): ReactNode {
  const t = useText(webhooksTexts);
  const format = useFormat();
  const reasons = useText(reasonsTexts);
  const why = (): string | undefined => {
    if (disabledReason) return reasonIn(reasons, disabledReason);
    if (!enabled) return undefined;
    const last = lastDelivery?.error ? t.lastFailed(reasonIn(reasons, lastDelivery.error)) : undefined;
    return failingSince ? [t.failingSince(format.dateTime(failingSince)), last].filter(Boolean).join(' ') : last;
  };
  const reason = why();
  return (
    <div className="account-state">
      {disabledReason ? <State tone="bad">{t.disabled}</State> : !enabled ? <State>{t.off}</State> : failingSince ? <State tone="warn">{t.failing}</State> : <State tone="good">{t.on}</State>}
      {reason && <p className="small faint">{reason}</p>}
    </div>
  );
}
