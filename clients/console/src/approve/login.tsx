import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { keysTexts } from '../account/keys-texts.js';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Button, ButtonLink, Check, ErrorNote, Form, Loading, Note, PageHead, Select, textOf } from '../ui/index.js';
import './approve.css';
import { once, plain } from './code.js';
import { Expires, FromWhere } from './facts.js';
import { loginTexts } from './login-texts.js';
import { texts } from './texts.js';

interface LoginProps {
  code: string;
  /** Whether the code came in the page's address: then the person says that they have compared it. */
  fromLink: boolean;
  onAnother(): void;
}

/** Shows which terminal wants to act as the person, and has them decide about it. */
export function ApproveLogin({ code, fromLink, onAnother }: LoginProps): ReactNode {
  const t = useText(loginTexts);
  const own = useText(texts);
  const [done, setDone] = useState<{ key: Schemas['APIKey'] } | 'refused'>();
  const pending = useQuery({
    queryKey: keys.loggingIn(plain(code)),
    queryFn: ({ signal }) => client.logins.pending({ userCode: code }, { signal, retries: 0 }),
    enabled: !done,
    ...once,
  });
  const another = <Button onClick={onAnother}>{own.enterAnother}</Button>;
  if (done === 'refused') {
    return (
      <>
        <PageHead key="refused" title={t.refused} about={t.refusedText} />
        <div className="row">{another}</div>
      </>
    );
  }
  if (done) {
    return (
      <>
        <PageHead key="approved" title={t.approved(done.key.name)} about={t.approvedText} />
        <div className="sheet stack">
          <p role="status">{t.keysHint}</p>
          <div className="row">
            <ButtonLink href="/account/keys">{t.keys}</ButtonLink>
            {another}
          </div>
        </div>
      </>
    );
  }
  if (!pending.data) {
    return (
      <>
        <PageHead title={t.title} />
        <div className="sheet stack">
          {pending.isError ? <ErrorNote error={pending.error} messages={t.messages} /> : <Loading />}
          {pending.isError && <div className="row">{another}</div>}
        </div>
      </>
    );
  }
  return <DecideLogin pending={pending.data} fromLink={fromLink} onApproved={(key) => setDone({ key })} onRefused={() => setDone('refused')} another={another} />;
}

interface DecideProps {
  pending: Schemas['PendingLogin'];
  fromLink: boolean;
  onApproved(key: Schemas['APIKey']): void;
  onRefused(): void;
  another: ReactNode;
}

function DecideLogin({ pending, fromLink, onApproved, onRefused, another }: DecideProps): ReactNode {
  const t = useText(loginTexts);
  const keyTexts = useText(keysTexts);
  const admin = useIsAdmin();
  const user = useUser();
  const [compared, setCompared] = useState(!fromLink);
  const [missing, setMissing] = useState(false);
  const expired = useNow() >= Date.parse(pending.expiresAt);
  const deny = useMutation({ mutationFn: () => client.logins.deny({ userCode: pending.userCode }, { idempotencyKey: true }), onSuccess: onRefused });
  const scopes = pending.scopes.filter((scope) => scope !== 'admin' || admin);
  return (
    <>
      <PageHead key="decide" title={t.asks} about={t.about(user.email)} />
      <div className="sheet stack">
        <LoginFacts pending={pending} />
        <Form
          submit={t.approve}
          messages={t.messages}
          disabled={!compared || expired}
          onSubmit={async (data) => {
            const chosen = scopes.filter((scope) => data.has(`scope-${scope}`));
            setMissing(chosen.length === 0);
            if (chosen.length === 0) return;
            const expiresAt = new Date(Date.now() + Number(textOf(data, 'expiresAt')) * 86_400_000).toISOString();
            onApproved(await client.logins.approve({ userCode: pending.userCode, scopes: chosen, expiresAt }, { idempotencyKey: true }));
          }}
        >
          <fieldset className="approve-scopes">
            <legend>{t.may}</legend>
            {scopes.map((scope) => (
              <Check key={scope} name={`scope-${scope}`} label={keyTexts.scopes[scope]} hint={scope === 'admin' ? t.admin : undefined} defaultChecked />
            ))}
            {missing && (
              <p className="note bad" role="alert">
                {t.needScope}
              </p>
            )}
          </fieldset>
          <Select label={keyTexts.validity} name="expiresAt" defaultValue="90">
            {(['30', '90', '365'] as const).map((days) => (
              <option key={days} value={days}>
                {keyTexts.expiry[days]}
              </option>
            ))}
          </Select>
          {fromLink && <Check label={t.compared(pending.userCode)} hint={t.comparedHint} checked={compared} onChange={(event) => setCompared(event.target.checked)} />}
        </Form>
        {deny.isError && <ErrorNote error={deny.error} messages={t.messages} />}
        <div className="row">
          <Button kind="danger" busy={deny.isPending} onClick={() => deny.mutate()}>
            {t.refuse}
          </Button>
          {another}
        </div>
      </div>
    </>
  );
}

/** What is known of the terminal. */
function LoginFacts({ pending }: { pending: Schemas['PendingLogin'] }): ReactNode {
  const t = useText(loginTexts);
  const own = useText(texts);
  return (
    <div className="stack">
      <dl className="facts">
        <dt>{t.facts.code}</dt>
        <dd className="approve-code">{pending.userCode}</dd>
        <dt>{t.facts.client}</dt>
        <dd>{pending.client}</dd>
        <dt>{t.facts.host}</dt>
        <dd>{pending.host ?? own.unknown}</dd>
        <dt>{t.facts.platform}</dt>
        <dd>{pending.platform ?? own.unknown}</dd>
        <FromWhere pending={pending} />
      </dl>
      {!pending.sameNetwork && <Note tone="warn">{t.elsewhere}</Note>}
      <Expires at={pending.expiresAt} expired={t.messages.login_expired} />
    </div>
  );
}
