import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Confirm, Copyable, Dialog, Form, Input, Loaded, Note, Select, textOf, useNotices } from '../ui/index.js';
import { given, useChecked, userByEmail } from './data.js';
import { QuotaDialog } from './quota.js';
import { texts } from './texts.js';

type User = Schemas['User'];

export type UserAct = { kind: 'link' | 'quota' | 'role' | 'email' | 'delete'; of: User } | { kind: 'create' };

/** Returns a function that has lists and pages of users read again. */
function useUsersChanged(): (id?: number) => Promise<unknown> {
  const queries = useQueryClient();
  return (id) => Promise.all([queries.invalidateQueries({ queryKey: keys.pages('users') }), id !== undefined && queries.invalidateQueries({ queryKey: keys.user(id) })]);
}

/** Returns a function that suspends or resumes a user, and lets that be undone. */
export function useSuspend(): (user: User) => Promise<void> {
  const t = useText(texts).users;
  const { notify } = useNotices();
  const changed = useUsersChanged();
  return async ({ id, email, suspended }) => {
    const set = async (value: boolean) => {
      await client.users.update(id, { suspended: value });
      await changed(id);
    };
    await set(!suspended);
    notify(suspended ? t.resumedNow(email) : t.suspendedNow(email), () => set(suspended));
  };
}

/** The dialog of what somebody wants to do with a user. */
export function UserDialog({ act, onClose, onDeleted }: { act: UserAct | undefined; onClose(next?: UserAct): void; onDeleted?(): void }): ReactNode {
  if (!act) return null;
  const close = () => onClose();
  switch (act.kind) {
    case 'create':
      return <Create onClose={onClose} />;
    case 'link':
      return <PasswordLink user={act.of} onClose={close} />;
    case 'quota':
      return <QuotaDialog owner={{ userId: act.of.id }} name={act.of.email} onClose={close} />;
    case 'role':
      return <ChangeRole user={act.of} onClose={close} />;
    case 'email':
      return <ChangeEmail user={act.of} onClose={close} />;
    case 'delete':
      return <Delete user={act.of} onClose={close} onDeleted={onDeleted} />;
  }
}

function Create({ onClose }: { onClose(next?: UserAct): void }): ReactNode {
  const t = useText(texts).users;
  const { notify } = useNotices();
  const changed = useUsersChanged();
  return (
    <Dialog title={t.create} onClose={() => onClose()}>
      <Form
        submit={t.create}
        messages={{ conflict: t.conflict, email_taken: t.conflict }}
        onCancel={() => onClose()}
        onSubmit={async (data) => {
          const user = await client.users.create({ email: textOf(data, 'email'), role: textOf(data, 'role') === 'admin' ? 'admin' : 'user' }, { idempotencyKey: true });
          await changed();
          notify(t.created(user.email));
          onClose({ kind: 'link', of: user });
        }}
      >
        <Input label={t.email} name="email" type="email" required maxLength={254} autoComplete="off" />
        <Select label={t.role} name="role" hint={t.roleHint} defaultValue="user">
          <option value="user">{t.roles.user}</option>
          <option value="admin">{t.roles.admin}</option>
        </Select>
      </Form>
    </Dialog>
  );
}

function PasswordLink({ user, onClose }: { user: User; onClose(): void }): ReactNode {
  const all = useText(texts);
  const t = all.users;
  const format = useFormat();
  const [link, setLink] = useState<Schemas['PasswordLink']>();
  const providers = useQuery({ queryKey: keys.providers, queryFn: ({ signal }) => client.auth.providers({ signal }) });
  return (
    <Dialog title={t.linkTitle(user.email)} onClose={onClose}>
      {link ? (
        <>
          {link.mailFailure && <Note tone="warn">{t.mailFailed(link.mailFailure)}</Note>}
          {link.mailedTo && <Note tone="good">{t.mailed(link.mailedTo)}</Note>}
          {link.url && <p>{t.linkText}</p>}
          {link.url && <Copyable text={link.url} label={t.linkCopy} />}
          <p className="small faint">{t.until(format.dateTime(link.expiresAt))}</p>
          <div className="row">
            <Button kind="primary" onClick={onClose}>
              {all.done}
            </Button>
          </div>
        </>
      ) : (
        <Loaded query={providers}>
          {({ localAccounts }) =>
            localAccounts ? (
              <>
                <p>{t.linkAsk}</p>
                <Form submit={t.linkMake} onCancel={onClose} onSubmit={async () => setLink(await client.users.createPasswordLink(user.id, { idempotencyKey: true }))} />
              </>
            ) : (
              <>
                <p>{t.noPasswords}</p>
                <div className="row">
                  <Button onClick={onClose}>{all.done}</Button>
                </div>
              </>
            )
          }
        </Loaded>
      )}
    </Dialog>
  );
}

function ChangeRole({ user, onClose }: { user: User; onClose(): void }): ReactNode {
  const t = useText(texts).users;
  const changed = useUsersChanged();
  const admin = user.role === 'admin';
  return (
    <Confirm
      title={admin ? t.makeUser : t.makeAdmin}
      action={admin ? t.makeUser : t.makeAdmin}
      messages={{ conflict: t.lastAdmin }}
      onClose={onClose}
      onConfirm={async () => {
        await client.users.update(user.id, { role: admin ? 'user' : 'admin' });
        await changed(user.id);
      }}
    >
      <p>{admin ? t.makeUserText(user.email) : t.makeAdminText(user.email)}</p>
    </Confirm>
  );
}

function ChangeEmail({ user, onClose }: { user: User; onClose(): void }): ReactNode {
  const t = useText(texts).users;
  const { notify } = useNotices();
  const changed = useUsersChanged();
  return (
    <Dialog title={t.emailChange} onClose={onClose}>
      <Form
        submit={t.emailChange}
        messages={{ conflict: t.conflict, email_taken: t.conflict }}
        onCancel={onClose}
        onSubmit={async (data) => {
          await client.users.update(user.id, { email: textOf(data, 'email') });
          await changed(user.id);
          notify(t.emailChanged);
          onClose();
        }}
      >
        <Input label={t.email} name="email" type="email" required maxLength={254} defaultValue={user.email} autoComplete="off" />
      </Form>
    </Dialog>
  );
}

function Delete({ user, onClose, onDeleted }: { user: User; onClose(): void; onDeleted: (() => void) | undefined }): ReactNode {
  const all = useText(texts);
  const t = all.users;
  const format = useFormat();
  const { notify } = useNotices();
  const changed = useUsersChanged();
  const quota = useQuery({ queryKey: keys.userUse(user.id), queryFn: ({ signal }) => client.users.quota(user.id, { signal }), staleTime: 0 });
  const [devices, setDevices] = useState<Schemas['DevicesOfDeletedUser']>('move');
  const [owner, setOwner] = useState('');
  const [wrong, checked] = useChecked();
  const used = quota.data?.devices.used ?? 0;

  async function remove(): Promise<void> {
    const newOwnerId = used > 0 && devices === 'move' ? await userByEmail('newOwnerId', owner.trim(), t.noUser) : undefined;
    await client.users.delete(user.id, used > 0 ? { devices, ...given({ newOwnerId }) } : {});
    notify(t.deleted(user.email));
    onClose();
    onDeleted?.();
    await changed();
  }

  return (
    <Dialog title={t.deleteTitle(user.email)} onClose={onClose}>
      <p>{t.deleteText}</p>
      <Loaded query={quota}>
        {() => (
          <TypedForm name={user.email} submit={all.delete} conflict={t.lastAdmin} onCancel={onClose} onSubmit={checked(remove)}>
            {used > 0 && (
              <fieldset className="site-choice">
                <legend>{t.hasDevices(format.number(used))}</legend>
                {(['move', 'delete'] as const).map((choice) => (
                  <label key={choice} className="check">
                    <input type="radio" name="devices" value={choice} checked={devices === choice} onChange={() => setDevices(choice)} />
                    {choice === 'move' ? t.moveDevices : t.deleteDevices}
                  </label>
                ))}
              </fieldset>
            )}
            {used > 0 && devices === 'move' && <Input label={t.newOwner} name="newOwnerId" type="email" required maxLength={254} value={owner} error={wrong['newOwnerId']} onChange={(event) => setOwner(event.target.value)} autoComplete="off" />}
          </TypedForm>
        )}
      </Loaded>
    </Dialog>
  );
}

/** A form that is sent once the name has been typed. */
function TypedForm({ name, submit, conflict, onCancel, onSubmit, children }: { name: string; submit: string; conflict: string; onCancel(): void; onSubmit(data: FormData, form: HTMLFormElement): Promise<unknown>; children: ReactNode }): ReactNode {
  const t = useText(texts);
  const [typed, setTyped] = useState('');
  return (
    <Form submit={submit} kind="danger primary" messages={{ conflict }} disabled={typed.trim() !== name} onCancel={onCancel} onSubmit={onSubmit}>
      {children}
      <Input label={t.typeName(name)} name="confirmation" autoComplete="off" spellCheck={false} value={typed} onChange={(event) => setTyped(event.target.value)} />
    </Form>
  );
}
