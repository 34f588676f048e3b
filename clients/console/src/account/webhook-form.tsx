import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Check, Dialog, Form, Input, Loaded, Note, numberOf, Select, textOf } from '../ui/index.js';
import type { WebhooksOwner } from './webhooks.js';
import { webhooksTexts } from './webhooks-texts.js';

const events: readonly Schemas['WebhookEventType'][] = ['device.offline', 'device.online', 'allocation.failed', 'allocation.recovered', 'enrollment.waiting', 'quota.reached'];
const formats: readonly Schemas['WebhookFormat'][] = ['standard', 'discord', 'ntfy'];

interface WebhookFormProps {
  owner: WebhooksOwner;
  /** The webhook to change; without it, one is made. */
  id?: number;
  onChanged(): Promise<unknown>;
  /** Called with the secret of a webhook that was made. */
  onClose(secret?: string): void;
}

/** Makes or changes a webhook. */
export function WebhookForm({ owner, id, onChanged, onClose }: WebhookFormProps): ReactNode {
  const t = useText(webhooksTexts);
  const close = () => onClose();
  return (
    <Dialog title={id === undefined ? t.create : t.edit} onClose={close}>
      {id !== undefined ? (
        <Existing id={id} onChanged={onChanged} onClose={close} />
      ) : (
        <Fields
          submit={t.create}
          onClose={close}
          onSave={async (values) => {
            // A webhook without an owner is the caller's.
            const { secret } = await client.webhooks.create({ ...values, ...('userId' in owner ? {} : owner) }, { idempotencyKey: true });
            await onChanged();
            onClose(secret);
          }}
        />
      )}
    </Dialog>
  );
}

interface Version {
  webhook: Schemas['Webhook'];
  etag: string | undefined;
}

async function readVersion(id: number, signal?: AbortSignal): Promise<Version> {
  const { data, etag } = await client.webhooks.get(id, { signal }).withResponse();
  return { webhook: data, etag };
}

interface ExistingProps {
  onChanged(): Promise<unknown>;
  onClose(): void;
}

function Existing({ id, ...rest }: ExistingProps & { id: number }): ReactNode {
  // Read once: what is being edited does not change under the person's hands.
  const query = useQuery({ queryKey: keys.edited('webhook', id), queryFn: ({ signal }) => readVersion(id, signal), staleTime: Infinity, gcTime: 0, refetchOnReconnect: false });
  return <Loaded query={query}>{(version) => <Change first={version} {...rest} />}</Loaded>;
}

const names = ['name', 'url', 'format', 'events', 'offlineDelaySeconds'] as const;

/** The names of the values that differ. */
function changedNames(from: Values, to: Values): (typeof names)[number][] {
  return names.filter((name) => JSON.stringify(from[name]) !== JSON.stringify(to[name]));
}

function Change({ first, onChanged, onClose }: ExistingProps & { first: Version }): ReactNode {
  const t = useText(webhooksTexts);
  const [last, setLast] = useState(first);
  const { webhook } = first;
  const textOfValue: Readonly<Record<(typeof names)[number], (of: Values) => string>> = {
    name: (of) => of.name,
    url: (of) => of.url,
    format: (of) => t.formats[of.format],
    events: (of) => of.events.map((event) => t.events[event]).join('; '),
    offlineDelaySeconds: (of) => String(of.offlineDelaySeconds),
  };
  const labels = { name: t.name, url: t.url, format: t.format, events: t.eventsTitle, offlineDelaySeconds: t.delay };

  async function save(values: Values): Promise<void> {
    const changed = changedNames(webhook, values);
    try {
      if (changed.length > 0) await client.webhooks.update(webhook.id, Object.fromEntries(changed.map((name) => [name, values[name]])), { ifMatch: last.etag });
    } catch (error) {
      if (isCode(error, 'precondition_failed')) setLast(await readVersion(webhook.id));
      throw error;
    }
    await onChanged();
    onClose();
  }

  return (
    <Fields webhook={webhook} submit={t.save} onClose={onClose} onSave={save}>
      {last !== first && (
        <Note tone="warn">
          <ul>
            {changedNames(webhook, last.webhook).map((name) => (
              <li key={name} className="account-url">
                {labels[name]}: {textOfValue[name](webhook)} → <strong>{textOfValue[name](last.webhook)}</strong>
              </li>
            ))}
          </ul>
          <p>{t.overtakenText}</p>
        </Note>
      )}
    </Fields>
  );
}

type Values = Required<Pick<Schemas['WebhookCreate'], 'name' | 'url' | 'events' | 'format' | 'offlineDelaySeconds'>>;

function Fields({ webhook, submit, onSave, onClose, children }: { webhook?: Schemas['Webhook']; submit: string; onSave(values: Values): Promise<void>; onClose(): void; children?: ReactNode }): ReactNode {
  const t = useText(webhooksTexts);
  const [missing, setMissing] = useState(false);
  return (
    <Form
      submit={submit}
      messages={{ conflict: t.conflict, precondition_failed: t.overtaken }}
      onCancel={onClose}
      onSubmit={async (data) => {
        const chosen = events.filter((event) => data.has(event));
        setMissing(chosen.length === 0);
        if (chosen.length === 0) return;
        await onSave({
          name: textOf(data, 'name'),
          url: textOf(data, 'url'),
          format: formats.find((format) => format === textOf(data, 'format')) ?? 'standard',
          events: chosen,
          offlineDelaySeconds: numberOf(data, 'offlineDelaySeconds') ?? 60,
        });
      }}
    >
      <Input label={t.name} name="name" required maxLength={100} defaultValue={webhook?.name} autoComplete="off" />
      <Select label={t.format} name="format" defaultValue={webhook?.format ?? 'discord'}>
        {formats.map((format) => (
          <option key={format} value={format}>
            {t.formats[format]}
          </option>
        ))}
      </Select>
      <Input label={t.url} name="url" type="url" required maxLength={2000} hint={t.urlHint} placeholder="https://" defaultValue={webhook?.url} autoComplete="off" spellCheck={false} />
      <fieldset className="account-fieldset">
        <legend>{t.eventsTitle}</legend>
        {events.map((event) => (
          <Check key={event} name={event} label={t.events[event]} defaultChecked={webhook ? webhook.events.includes(event) : event !== 'enrollment.waiting' && event !== 'quota.reached'} />
        ))}
        {missing && (
          <p className="note bad" role="alert">
            {t.needEvent}
          </p>
        )}
      </fieldset>
      <Input label={t.delay} name="offlineDelaySeconds" type="number" required min={0} max={86_400} step={1} inputMode="numeric" hint={t.delayHint} defaultValue={webhook?.offlineDelaySeconds ?? 60} />
      {children}
    </Form>
  );
}
