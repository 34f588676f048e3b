import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useRef, type ReactNode } from 'react';
import { useLocation, useSearch } from 'wouter';
import { client, isSignedOut } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Form, Input, Loaded, Note, PageHead, textOf } from '../ui/index.js';
import { returnPath } from './session.js';
import './session.css';
import { texts } from './texts.js';

/** The page on which people sign in, in the ways that the panel has. */
export default function SignIn(): ReactNode {
  const t = useText(texts);
  const queries = useQueryClient();
  const [, navigate] = useLocation();
  const search = useSearch();
  const target = returnPath(search);
  const providers = useQuery({ queryKey: keys.providers, queryFn: ({ signal }) => client.auth.providers({ signal }) });

  /** Goes on with a new session; nothing that was read for another user stays. */
  function enter(): void {
    queries.removeQueries({ queryKey: keys.all });
    navigate(target, { replace: true });
  }

  return (
    <>
      <PageHead title={t.title} />
      {new URLSearchParams(search).has('ended') && <Note tone="warn">{t.ended}</Note>}
      <Loaded query={providers}>
        {({ localAccounts, providers, eclipanelUrl }) => (
          <>
            {providers.map(({ id, name, loginUrl }) => (
              <a key={id} className="button" href={`${loginUrl}?${new URLSearchParams({ returnTo: target })}`}>
                {t.with(name)}
              </a>
            ))}
            {eclipanelUrl && <EcliPanel url={eclipanelUrl} onSession={enter} />}
            {localAccounts && (providers.length > 0 || eclipanelUrl) && <p className="session-or">{t.or}</p>}
            {localAccounts && <Credentials onSession={enter} />}
            {!localAccounts && providers.length === 0 && !eclipanelUrl && <Note tone="warn">{t.noWay}</Note>}
          </>
        )}
      </Loaded>
    </>
  );
}

/** Signs in by the session that the person has at EcliPanel, which the browser sends by itself. */
function EcliPanel({ url, onSession }: { url: string; onSession(): void }): ReactNode {
  const t = useText(texts);
  return (
    <div className="stack tight">
      <p>{t.eclipanel}</p>
      <a className="button" href={url} target="_blank" rel="noopener">
        {t.eclipanelLink}
      </a>
      <Form
        submit={t.eclipanelDone}
        messages={{ unauthorized: t.noEcliPanelSession }}
        onSubmit={async () => {
          await client.auth.session();
          onSession();
        }}
      />
    </div>
  );
}

function Credentials({ onSession }: { onSession(): void }): ReactNode {
  const t = useText(texts);
  const password = useRef<HTMLInputElement>(null);
  return (
    <>
      <Form
        submit={t.submit}
        messages={{ unauthorized: t.wrong }}
        onSubmit={async (data) => {
          try {
            await client.auth.login({ email: textOf(data, 'email'), password: String(data.get('password')) });
          } catch (error) {
            // Most people have mistyped the password, and type it anew.
            if (isSignedOut(error)) password.current?.select();
            throw error;
          }
          onSession();
        }}
      >
        <Input label={t.email} name="email" type="email" autoComplete="username" required maxLength={254} autoFocus />
        <Input label={t.password} name="password" type="password" autoComplete="current-password" required maxLength={1024} ref={password} />
      </Form>
      <p className="small faint">{t.forgotten}</p>
    </>
  );
}
