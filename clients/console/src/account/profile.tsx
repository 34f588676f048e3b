import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { languages, useLanguage, useText, type Language } from '../lib/language.js';
import { setTheme, useTheme, type Theme } from '../lib/theme.js';
import { Button, Dialog, Form, Input, Loaded, PageHead, Select, textOf, useNotices } from '../ui/index.js';
import { texts } from './texts.js';


export function Profile(): ReactNode {
  const t = useText(texts).profile;
  const account = useQuery({ queryKey: keys.account, queryFn: ({ signal }) => client.account.get({ signal }) });
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <div className="columns">
        <Loaded query={account}>{(data) => <Own account={data} />}</Loaded>
        <Look />
      </div>
    </>
  );
}

function Own({ account }: { account: Schemas['Account'] }): ReactNode {
  const t = useText(texts).profile;
  const format = useFormat();
  const [open, setOpen] = useState<'email' | 'password'>();
  const close = () => setOpen(undefined);
  return (
    <section className="sheet stack" aria-labelledby="account-own">
      <h2 id="account-own">{t.account}</h2>
      <dl className="facts">
        <dt>{t.email}</dt>
        <dd>{account.email}</dd>
        <dt>{t.role}</dt>
        <dd>{t.roles[account.role]}</dd>
        <dt>{t.since}</dt>
        <dd>
          <time dateTime={account.createdAt}>{format.date(account.createdAt)}</time>
        </dd>
      </dl>
      {account.hasPassword ? (
        <div className="row">
          <Button onClick={() => setOpen('password')}>{t.changePassword}</Button>
          <Button onClick={() => setOpen('email')}>{t.changeEmail}</Button>
        </div>
      ) : (
        <p className="faint">{t.noPassword}</p>
      )}
      {open === 'password' && <ChangePassword email={account.email} onClose={close} />}
      {open === 'email' && <ChangeEmail email={account.email} onClose={close} />}
    </section>
  );
}

function ChangePassword({ email, onClose }: { email: string; onClose(): void }): ReactNode {
  const t = useText(texts).profile;
  const { notify } = useNotices();
  const [wrong, setWrong] = useState<string>();
  return (
    <Dialog title={t.changePassword} onClose={onClose}>
      <Form
        submit={t.changePassword}
        onCancel={onClose}
        onSubmit={async (data) => {
          const [currentPassword, newPassword] = [String(data.get('currentPassword')), String(data.get('newPassword'))];
          const differ = newPassword !== data.get('repeat');
          setWrong(differ ? t.differ : undefined);
          if (differ) return;
          await client.account.changePassword({ currentPassword, newPassword });
          notify(t.passwordChanged);
          onClose();
        }}
      >
        <input className="unseen" type="text" autoComplete="username" value={email} readOnly tabIndex={-1} aria-hidden="true" />
        <Input label={t.currentPassword} name="currentPassword" type="password" required autoComplete="current-password" />
        <Input label={t.newPassword} name="newPassword" type="password" required minLength={12} hint={t.newPasswordHint} autoComplete="new-password" />
        <Input label={t.repeat} name="repeat" type="password" required error={wrong} autoComplete="new-password" />
      </Form>
    </Dialog>
  );
}

function ChangeEmail({ email, onClose }: { email: string; onClose(): void }): ReactNode {
  const t = useText(texts).profile;
  const { notify } = useNotices();
  const queries = useQueryClient();
  return (
    <Dialog title={t.changeEmail} onClose={onClose}>
      <Form
        submit={t.changeEmail}
        onCancel={onClose}
        onSubmit={async (data) => {
          await client.account.update({ email: textOf(data, 'email'), currentPassword: String(data.get('currentPassword')) });
          await Promise.all([queries.invalidateQueries({ queryKey: keys.account }), queries.invalidateQueries({ queryKey: keys.session })]);
          notify(t.emailChanged);
          onClose();
        }}
      >
        <Input label={t.newEmail} name="email" type="email" required maxLength={254} defaultValue={email} autoComplete="email" />
        <Input label={t.currentPassword} name="currentPassword" type="password" required autoComplete="current-password" />
      </Form>
    </Dialog>
  );
}

function Look(): ReactNode {
  const t = useText(texts).profile;
  const { language, setLanguage } = useLanguage();
  const theme = useTheme();
  return (
    <section className="sheet stack" aria-labelledby="account-look">
      <h2 id="account-look">{t.look}</h2>
      <p className="faint">{t.lookText}</p>
      <Select label={t.language} name="language" value={language} onChange={(event) => setLanguage(event.target.value as Language)}>
        {Object.entries(languages).map(([tag, name]) => (
          <option key={tag} value={tag} lang={tag}>
            {name}
          </option>
        ))}
      </Select>
      <Select label={t.theme} name="theme" value={theme} onChange={(event) => setTheme(event.target.value as Theme)}>
        {(['system', 'light', 'dark'] as const).map((name) => (
          <option key={name} value={name}>
            {t.themes[name]}
          </option>
        ))}
      </Select>
    </section>
  );
}
