import { useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useErrorNotice } from '../lib/error-notice.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { Button, Confirm, Loaded, PageHead, Pager, Table, useNotices } from '../ui/index.js';
import { namesOf } from './agent-names.js';
import { texts } from './texts.js';

/** Where the person is signed in. */
export function Sessions(): ReactNode {
  const t = useText(texts).sessions;
  const format = useFormat();
  const now = useNow(60);
  const { notify } = useNotices();
  const queries = useQueryClient();
  const attempt = useErrorNotice();
  const pages = usePages('sessions', client.account.sessions, {});
  const [asking, setAsking] = useState(false);
  const reread = () => queries.invalidateQueries({ queryKey: keys.pages('sessions') });
  const others = pages.data && (pages.data.items.length > 1 || pages.data.next || !pages.onFirst);
  const nameOf = ({ userAgent = '' }: Schemas['AccountSession']): string => {
    const { browser, system } = namesOf(userAgent);
    return browser && system ? t.on(browser, system) : (browser ?? (userAgent || t.unknown));
  };
  const end = (id: string) =>
    attempt(async () => {
      await client.account.endSession(id);
      await reread();
      notify(t.ended);
    });
  const time = (at: string) => (
    <time dateTime={at} title={format.dateTime(at)}>
      {format.ago(at, now)}
    </time>
  );
  return (
    <>
      <PageHead title={t.title} about={t.about} actions={others && <Button onClick={() => setAsking(true)}>{t.endOthers}</Button>} />
      <Loaded query={pages}>
        {({ items }) => (
          <div>
            <Table
              caption={t.title}
              items={items}
              keyOf={({ id }) => id}
              columns={[
                {
                  title: t.browser,
                  cell: (session) => (
                    <span className="account-agent" title={session.userAgent}>
                      {nameOf(session)} {session.current && <strong>({t.current})</strong>}
                    </span>
                  ),
                },
                { title: t.address, cell: ({ address }) => (address ? <code>{address}</code> : <span className="faint">{t.noAddress}</span>) },
                { title: t.lastUsed, cell: ({ lastUsedAt }) => time(lastUsedAt) },
                { title: t.created, cell: ({ createdAt }) => time(createdAt) },
                {
                  title: '',
                  kind: 'actions',
                  cell: (session) =>
                    !session.current && (
                      <Button compact kind="danger" aria-label={t.endLabel(nameOf(session))} onClick={() => void end(session.id)}>
                        {t.end}
                      </Button>
                    ),
                },
              ]}
            />
            <Pager pages={pages} />
          </div>
        )}
      </Loaded>
      {asking && (
        <Confirm
          title={t.endOthersTitle}
          action={t.endOthers}
          onClose={() => setAsking(false)}
          onConfirm={async () => {
            const { ended } = await client.account.endOtherSessions();
            await reread();
            notify(t.othersEnded(format.number(ended)));
          }}
        >
          <p>{t.endOthersText}</p>
        </Confirm>
      )}
    </>
  );
}
