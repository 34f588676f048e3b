import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { usePermits } from '../session/session.js';
import { Button, Copyable, ErrorNote, Form, Input, Loading, Note, PageHead, textOf } from '../ui/index.js';
import './approve.css';
import { Approved } from './approved.js';
import { isLoginCode, once, plain } from './code.js';
import { Decide } from './decide.js';
import { ApproveLogin } from './login.js';
import { loginTexts } from './login-texts.js';
import { texts } from './texts.js';

/** The page for those whose machines an admin approves. */
function NotYours({ code, onCode }: { code: string; onCode(code: string): void }): ReactNode {
  const t = useText(texts);
  const login = useText(loginTexts);
  return (
    <>
      <PageHead title={t.title} />
      <Note>
        <p>{t.messages.forbidden}</p>
        {code && <p>{t.sendLink}</p>}
        {code && <Copyable text={`${location.origin}/device?${new URLSearchParams({ code })}`} label={t.link} />}
      </Note>
      <div className="sheet stack">
        <Form submit={t.find} onSubmit={(data) => onCode(textOf(data, 'code'))}>
          <div className="approve-field">
            <Input label={login.code} name="code" required maxLength={32} placeholder="2345-CDFG" hint={login.orLogin} autoComplete="off" autoCapitalize="characters" spellCheck={false} />
          </div>
        </Form>
      </div>
    </>
  );
}

/**
 * The page on which a device is approved. A code in the address (`code`) shows what asks, and
 * does nothing else: whoever made the link may not be whom the device belongs to.
 */
export default function Approve(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const code = (parameters.get('code') ?? '').trim();
  const approved = parameters.get('approved');
  const [typed, setTyped] = useState('');
  const [refused, setRefused] = useState(false);
  const permits = usePermits();
  const login = isLoginCode(code);
  const waiting = permits.approve && !login && code !== '' && !approved && !refused;
  const pending = useQuery({
    // Not among what device events have read again.
    queryKey: keys.askingByCode(plain(code)),
    queryFn: ({ signal }) => client.enrollment.pending({ userCode: code }, { signal, retries: 0 }),
    enabled: waiting,
    ...once,
  });
  const another = (): void => {
    setRefused(false);
    setParameters({ code: undefined, approved: undefined });
  };

  const enter = (entered: string): void => {
    setTyped(entered);
    setParameters({ code: entered });
  };

  if (login) return <ApproveLogin key={plain(code)} code={code} fromLink={plain(typed) !== plain(code)} onAnother={another} />;
  if (!permits.approve) return <NotYours code={code} onCode={enter} />;
  if (approved) return <Approved id={approved} onAnother={another} />;
  if (refused) {
    return (
      <>
        <PageHead key="refused" title={t.refused} about={t.refusedText} />
        <p>
          <Button onClick={another}>{t.enterAnother}</Button>
        </p>
      </>
    );
  }
  if (waiting && pending.data) {
    return (
      <>
        <PageHead key="decide" title={t.asks(pending.data.name)} />
        <Decide
          key={pending.data.userCode}
          pending={pending.data}
          fromLink={plain(typed) !== plain(code)}
          onApproved={({ id }) => setParameters({ code: undefined, approved: id }, { replace: true })}
          onRefused={() => setRefused(true)}
          onAnother={another}
        />
      </>
    );
  }
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <div className="sheet stack">
        <Form
          key={code}
          submit={t.find}
          onSubmit={(data) => {
            const entered = textOf(data, 'code');
            if (plain(entered) === plain(code)) {
              setTyped(entered);
              void pending.refetch();
            } else enter(entered);
          }}
        >
          <div className="approve-field">
            <Input label={t.code} name="code" defaultValue={code} required maxLength={32} placeholder="CDFG-2345" hint={t.caution} autoComplete="off" autoCapitalize="characters" spellCheck={false} autoFocus />
          </div>
        </Form>
        {waiting && pending.isError && !pending.isFetching && <ErrorNote error={pending.error} messages={t.messages} />}
        {waiting && pending.isFetching && <Loading />}
      </div>
    </>
  );
}
