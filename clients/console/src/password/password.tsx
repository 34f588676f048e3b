import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { takeLinkToken, useNextLink } from '../session/link-token.js';
import { ButtonLink, Form, Input, Note, PageHead } from '../ui/index.js';
import { texts } from './texts.js';

// Taken as soon as the page's code runs, before anything is shown.
const token = takeLinkToken();

/** The page of a link with which a person sets their password, at first or after forgetting it. */
export default function Password(): ReactNode {
  const t = useText(texts);
  const [password, setPassword] = useState('');
  const [again, setAgain] = useState('');
  const [left, setLeft] = useState(false);
  const [done, setDone] = useState(false);
  useNextLink();
  const differ = again !== password;

  if (done) {
    return (
      <>
        <PageHead key="done" title={t.done} about={t.doneText} />
        <p>
          <ButtonLink kind="primary" href="/login">
            {t.signIn}
          </ButtonLink>
        </p>
      </>
    );
  }
  return (
    <>
      <PageHead title={t.title} />
      {token ? (
        <Form
          submit={t.submit}
          messages={{ not_found: t.used }}
          onSubmit={async () => {
            setLeft(true);
            if (differ) return;
            await client.auth.setPassword({ token, password });
            setDone(true);
          }}
        >
          <Input label={t.password} name="password" type="password" autoComplete="new-password" required minLength={12} maxLength={1024} hint={t.rule} value={password} onChange={(event) => setPassword(event.target.value)} autoFocus />
          <Input
            label={t.again}
            name="again"
            type="password"
            autoComplete="new-password"
            required
            maxLength={1024}
            value={again}
            error={left && again && differ ? t.differ : undefined}
            onBlur={() => setLeft(true)}
            onChange={(event) => setAgain(event.target.value)}
          />
        </Form>
      ) : (
        <Note tone="bad">{t.wholeLink}</Note>
      )}
    </>
  );
}
