import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { tunnelKeys } from '@eclitunnel/sdk/react';
import { useLocation, useSearch } from 'wouter';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { Form, Input, Loaded, PageHead, textOf } from '../ui/index.js';
import { returnPath } from './session.js';
import { texts } from './texts.js';

/** The page on which people sign in, in the ways that the panel has. */
export default function SignIn(): ReactNode {
  const t = useText(texts);
  const queries = useQueryClient();
  const [, navigate] = useLocation();
  const target = returnPath(useSearch());
  const providers = useQuery({ queryKey: ['providers'], queryFn: ({ signal }) => client.auth.providers({ signal }) });

  /** Goes on with a new session; nothing that was read for another user stays. */
  function enter(): void {
    queries.removeQueries({ queryKey: tunnelKeys(client).all });
    navigate(target, { replace: true });
  }

  return (
    <>
      <PageHead title={t.title} />
      <Loaded query={providers}>
        {({ localAccounts, providers, eclipanelUrl }) => (
          <>
            {providers.map(({ id, name, loginUrl }) => (
              <a key={id} className="button" href={`${loginUrl}?${new URLSearchParams({ returnTo: target })}`}>
                {t.with(name)}
              </a>
            ))}
            {eclipanelUrl && (
              <div className="stack tight">
                <p>{t.eclipanel}</p>
                <a className="button" href={eclipanelUrl} target="_blank" rel="noopener">
                  {t.eclipanelLink}
                </a>
                <Form
                  submit={t.eclipanelDone}
                  messages={{ unauthorized: t.noEcliPanelSession }}
                  onSubmit={async () => {
                    await client.auth.session();
                    enter();
                  }}
                />
              </div>
            )}
            {localAccounts && (
              <Form
                submit={t.submit}
                messages={{ unauthorized: t.wrong }}
                onSubmit={async (data) => {
                  await client.auth.login({ email: textOf(data, 'email'), password: String(data.get('password')) });
                  enter();
                }}
              >
                <Input label={t.email} name="email" type="email" autoComplete="username" required maxLength={254} autoFocus />
                <Input label={t.password} name="password" type="password" autoComplete="current-password" required maxLength={1024} />
              </Form>
            )}
            {localAccounts && <p className="small faint">{t.forgotten}</p>}
          </>
        )}
      </Loaded>
    </>
  );
}
