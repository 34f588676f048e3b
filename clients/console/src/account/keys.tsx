import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { Check, Dialog, Form, Input, Menu, MenuItem, Select, Table, textOf, useNotices } from '../ui/index.js';
import { keysTexts } from './keys-texts.js';
import { SecretDialog } from './secret.js';
import { DeleteOne, ShortList } from './short-list.js';
import './account.css';

type Key = Schemas['APIKey'];

/** Whose keys they are. */
export type KeysOwner = { userId: number } | { organisationId: number };

const scopes = ['read', 'devices', 'allocations', 'enrollment', 'admin'] as const;

/** The API keys of the person, or of an organisation that they manage. */
export function Keys({ owner }: { owner: KeysOwner }): ReactNode {
  const t = useText(keysTexts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  const queryKey = keys.apiKeys(owner);
  const query = useQuery({ queryKey, queryFn: ({ signal }) => client.keys.list(owner, { signal }) });
  const [open, setOpen] = useState<{ act: 'create' } | { act: 'rename' | 'delete'; of: Key }>();
  const close = () => setOpen(undefined);
  const reread = () => queries.invalidateQueries({ queryKey });
  return (
    <>
      <ShortList query={query} texts={t} onCreate={() => setOpen({ act: 'create' })}>
        {(items) => <List items={items} onAct={(act, of) => setOpen({ act, of })} />}
      </ShortList>
      {open?.act === 'create' && <Create owner={owner} onMade={reread} onClose={close} />}
      {open?.act === 'rename' && (
        <Dialog title={t.rename} onClose={close}>
          <Form
            submit={t.save}
            onCancel={close}
            onSubmit={async (data) => {
              await client.keys.update(open.of.id, { name: textOf(data, 'name') });
              await reread();
              notify(t.renamed);
              close();
            }}
          >
            <Input label={t.name} name="name" required maxLength={100} defaultValue={open.of.name} autoComplete="off" />
          </Form>
        </Dialog>
      )}
      {open?.act === 'delete' && <DeleteOne texts={t} name={open.of.name} onDelete={() => client.keys.delete(open.of.id).then(reread)} onClose={close} />}
    </>
  );
}

function List({ items, onAct }: { items: readonly Key[]; onAct(act: 'rename' | 'delete', of: Key): void }): ReactNode {
  const t = useText(keysTexts);
  const format = useFormat();
  const now = useNow(60);
  return (
    <Table
      caption={t.title}
      items={items}
      keyOf={({ id }) => id}
      columns={[
        { title: t.name, cell: ({ name }) => <strong>{name}</strong> },
        { title: t.key, cell: ({ prefix }) => <code className="account-prefix">{prefix}…</code> },
        { title: t.scopesTitle, cell: (key) => key.scopes.map((scope) => t.scopes[scope]).join(', ') },
        {
          title: t.expires,
          cell: ({ expiresAt }) => {
            if (!expiresAt) return t.never;
            const date = <time dateTime={expiresAt}>{format.date(expiresAt)}</time>;
            return Date.parse(expiresAt) <= now ? <strong>{t.expired(format.date(expiresAt))}</strong> : date;
          },
        },
        {
          title: t.used,
          cell: ({ lastUsedAt, lastUsedFrom }) =>
            lastUsedAt ? (
              <span>
                <time dateTime={lastUsedAt} title={format.dateTime(lastUsedAt)}>
                  {format.ago(lastUsedAt, now)}
                </time>{' '}
                {lastUsedFrom && <span className="faint small">{t.from(lastUsedFrom)}</span>}
              </span>
            ) : (
              <span className="faint">{t.unused}</span>
            ),
        },
        {
          title: '',
          kind: 'actions',
          cell: (key) => (
            <Menu label={key.name}>
              <MenuItem onSelect={() => onAct('rename', key)}>{t.rename}</MenuItem>
              <MenuItem bad onSelect={() => onAct('delete', key)}>
                {t.delete}
              </MenuItem>
            </Menu>
          ),
        },
      ]}
    />
  );
}

function Create({ owner, onMade, onClose }: { owner: KeysOwner; onMade(): Promise<unknown>; onClose(): void }): ReactNode {
  const t = useText(keysTexts);
  const admin = useIsAdmin();
  const ofOrganisation = 'organisationId' in owner;
  const [made, setMade] = useState<string>();
  const [missing, setMissing] = useState(false);
  if (made) return <SecretDialog secret={made} texts={{ title: t.made, warning: t.madeText, copy: t.copy, done: t.done }} onClose={onClose} />;
  return (
    <Dialog title={t.create} onClose={onClose}>
      <Form
        submit={t.create}
        messages={{ conflict: t.tooMany }}
        onCancel={onClose}
        onSubmit={async (data) => {
          const chosen = scopes.filter((scope) => data.has(`scope-${scope}`));
          setMissing(chosen.length === 0);
          if (chosen.length === 0) return;
          const days = textOf(data, 'expiresAt');
          const { key } = await client.keys.create(
            {
              name: textOf(data, 'name'),
              scopes: chosen,
              ...(days && { expiresAt: new Date(Date.now() + Number(days) * 86_400_000).toISOString() }),
              ...(ofOrganisation && { organisationId: owner.organisationId }),
            },
            { idempotencyKey: true },
          );
          setMade(key);
          await onMade();
        }}
      >
        <Input label={t.name} name="name" required maxLength={100} hint={t.nameHint} autoComplete="off" />
        <fieldset className="account-fieldset">
          <legend>{t.scopesTitle}</legend>
          {scopes
            .filter((scope) => scope !== 'admin' || (admin && !ofOrganisation))
            .map((scope) => (
              <Check key={scope} name={`scope-${scope}`} label={t.scopes[scope]} defaultChecked={scope === 'read'} />
            ))}
          {missing && (
            <p className="note bad" role="alert">
              {t.needScope}
            </p>
          )}
        </fieldset>
        <Select label={t.validity} name="expiresAt" defaultValue="90">
          {(['30', '90', '365', ''] as const).map((days) => (
            <option key={days} value={days}>
              {t.expiry[days]}
            </option>
          ))}
        </Select>
      </Form>
    </Dialog>
  );
}
