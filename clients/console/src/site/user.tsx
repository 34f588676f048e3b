import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { isCode } from '@eclitunnel/sdk';
import { Link, useLocation } from 'wouter';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { ButtonLink, Loaded, Note, PageHead, State } from '../ui/index.js';
import { QuotaText, useOwnersQuota } from './quota.js';
import { texts } from './texts.js';
import { UserDialog, type UserAct } from './user-dialogs.js';
import { UserMenu } from './users.js';

/** One account. */
export default function UserPage({ id }: { id: number }): ReactNode {
  const all = useText(texts);
  const t = all.users;
  const format = useFormat();
  const [, navigate] = useLocation();
  const [act, setAct] = useState<UserAct>();
  const user = useQuery({ queryKey: keys.user(id), queryFn: ({ signal }) => client.users.get(id, { signal }) });
  const quota = useOwnersQuota({ userId: id });
  const crumbs = <Link href="/site/users">{t.all}</Link>;

  if (!user.data) {
    return (
      <>
        <PageHead title={isCode(user.error, 'not_found') ? t.missing : t.account} crumbs={crumbs} />
        <Loaded query={user}>{() => null}</Loaded>
      </>
    );
  }
  const { email, role, suspended, createdAt } = user.data;
  return (
    <>
      <PageHead title={email} crumbs={crumbs} actions={<UserMenu user={user.data} onAct={setAct} />} />
      {suspended && <Note tone="warn">{t.suspendedText}</Note>}
      <div className="columns site-account">
        <section className="sheet stack">
          <h2>{t.account}</h2>
          <dl className="facts">
            <dt>{t.state}</dt>
            <dd>
              <State tone={suspended ? 'bad' : 'good'}>{suspended ? t.suspended : t.active}</State>
            </dd>
            <dt>{t.role}</dt>
            <dd>{t.roles[role]}</dd>
            <dt>{all.created}</dt>
            <dd>
              <time dateTime={createdAt}>{format.dateTime(createdAt)}</time>
            </dd>
            <dt>{t.id}</dt>
            <dd>{id}</dd>
          </dl>
        </section>
        <section className="sheet stack">
          <h2>{all.quota.heading}</h2>
          <Loaded query={quota}>
            {({ data }) => (
              <dl className="facts">
                {(['devices', 'allocations', 'portsOutsideRange'] as const).map((name) => (
                  <div key={name} className="site-fact">
                    <dt>{all.quota[name]}</dt>
                    <dd>
                      <QuotaText use={data[name]} />
                    </dd>
                  </div>
                ))}
              </dl>
            )}
          </Loaded>
        </section>
      </div>
      <p className="row">
        <ButtonLink href={`/devices?ownerId=${id}`}>{t.allDevices}</ButtonLink>
        <ButtonLink href={`/site/audit?userId=${id}`}>{t.audit}</ButtonLink>
      </p>
      <UserDialog act={act} onClose={setAct} onDeleted={() => navigate('/site/users', { replace: true })} />
    </>
  );
}
