import { isCode, type Organisation } from '@eclitunnel/sdk';
import { lazy, Suspense, useState, type ReactNode } from 'react';
import { Link, Route, Switch, useLocation } from 'wouter';
import { useText } from '../lib/language.js';
import { NotFound } from '../shell/not-found.js';
import { ErrorNote, Loading, Note, PageHead, Tabs } from '../ui/index.js';
import { Acts } from './acts.js';
import { useOrganisation, useRights, type Role } from './data.js';
import { Invitations } from './invitations.js';
import { Members } from './members.js';
import { Overview } from './overview.js';
import { texts } from './texts.js';

const Rules = lazy(async () => ({ default: (await import('./rules.js')).Rules }));
const Keys = lazy(async () => ({ default: (await import('../account/keys.js')).Keys }));
const Webhooks = lazy(async () => ({ default: (await import('../account/webhooks.js')).Webhooks }));
const UsageSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).UsageSection }));
const AuditTrail = lazy(async () => ({ default: (await import('../site/audit.js')).AuditTrail }));

/** The pages of one organisation. */
export function Detail({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const query = useOrganisation(id);
  const [leaving, setLeaving] = useState(false);
  // What the user has deleted or left is not there any more: its page closes without saying so.
  if (leaving) return <Loading />;
  // Who was removed meanwhile does not go on seeing it.
  const gone = isCode(query.error, 'not_found');
  if (query.data && !gone) return <Page organisation={query.data} onLeaving={setLeaving} />;
  if (!query.isError) return <Loading />;
  return (
    <>
      <PageHead title={t.one} crumbs={<Link href="/organisations">{t.title}</Link>} />
      <ErrorNote error={query.error} messages={{ not_found: t.gone }} onAgain={gone ? undefined : () => void query.refetch()} />
    </>
  );
}

function Page({ organisation, onLeaving }: { organisation: Organisation; onLeaving(leaving: boolean): void }): ReactNode {
  const t = useText(texts);
  const { manage } = useRights(organisation);
  const [path] = useLocation();
  const { id, name, role } = organisation;
  const at = `/organisations/${id}`;
  const tabs = [
    { href: at, text: t.tabs.overview },
    { href: `${at}/members`, text: t.tabs.members },
    ...(manage ? [{ href: `${at}/invitations`, text: t.tabs.invitations }] : []),
    { href: `${at}/rules`, text: t.tabs.rules },
    { href: `${at}/traffic`, text: t.tabs.traffic },
    ...(manage
      ? [
          { href: `${at}/keys`, text: t.tabs.keys },
          { href: `${at}/webhooks`, text: t.tabs.webhooks },
          { href: `${at}/audit`, text: t.tabs.audit },
        ]
      : []),
  ];
  // A link that an admin has sent leads a member here.
  const forManagers = !manage && ['invitations', 'keys', 'webhooks', 'audit'].some((part) => path === `${at}/${part}`);
  return (
    <>
      <PageHead
        title={name}
        crumbs={<Link href="/organisations">{t.title}</Link>}
        about={role === null ? t.asPanelAdmin : t.youAre[role as Role]}
        actions={<Acts organisation={organisation} onLeaving={onLeaving} />}
      />
      <Tabs label={t.tabs.label} tabs={tabs} />
      <Suspense fallback={<Loading />}>
        <Switch>
          <Route path={at}>
            <Overview organisation={organisation} />
          </Route>
          <Route path={`${at}/members`}>
            <Members organisation={organisation} onLeaving={onLeaving} />
          </Route>
          <Route path={`${at}/rules`}>
            <Rules id={id} may={manage} />
          </Route>
          <Route path={`${at}/traffic`}>
            <UsageSection organisationId={id} />
          </Route>
          {forManagers && (
            <Route>
              <Note>{t.forManagers}</Note>
            </Route>
          )}
          <Route path={`${at}/invitations`}>
            <Invitations organisation={organisation} />
          </Route>
          <Route path={`${at}/keys`}>
            <Part title={t.tabs.keys} about={t.keysAbout}>
              <Keys owner={{ organisationId: id }} />
            </Part>
          </Route>
          <Route path={`${at}/webhooks`}>
            <Part title={t.tabs.webhooks} about={t.webhooksAbout}>
              <Webhooks owner={{ organisationId: id }} />
            </Part>
          </Route>
          <Route path={`${at}/audit`}>
            <Part title={t.tabs.audit}>
              <AuditTrail query={{ organisationId: id }} />
            </Part>
          </Route>
          <Route>
            <NotFound />
          </Route>
        </Switch>
      </Suspense>
    </>
  );
}

/** A part that other pages have as well, under a heading of its own. */
function Part({ title, about, children }: { title: string; about?: string; children: ReactNode }): ReactNode {
  return (
    <section className="stack" aria-label={title}>
      <div>
        <h2>{title}</h2>
        {about && <p className="faint">{about}</p>}
      </div>
      {children}
    </section>
  );
}
