import { lazy, type ReactNode } from 'react';
import { Redirect, Route, Switch } from 'wouter';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { Forbidden, NotFound } from '../shell/not-found.js';
import { Tabs } from '../ui/index.js';
import { texts } from './texts.js';
import './site.css';

const Servers = lazy(() => import('./servers.js'));
const Users = lazy(() => import('./users.js'));
const UserPage = lazy(() => import('./user.js'));
const Organisations = lazy(() => import('./organisations.js'));
const Settings = lazy(() => import('./settings.js'));
const Keys = lazy(() => import('./keys.js'));
const Audit = lazy(() => import('./audit-page.js'));
const Versions = lazy(() => import('./versions.js'));
const Webhooks = lazy(() => import('./webhooks.js'));

/** The pages for admins of the panel. */
export default function Site(): ReactNode {
  const t = useText(texts);
  if (!useIsAdmin()) return <Forbidden />;
  const tabs = [
    { href: '/site/servers', text: t.tabs.servers },
    { href: '/site/users', text: t.tabs.users },
    { href: '/site/organisations', text: t.tabs.organisations },
    { href: '/site/settings', text: t.tabs.settings },
    { href: '/site/audit', text: t.tabs.audit },
    { href: '/site/versions', text: t.tabs.versions },
    { href: '/site/keys', text: t.tabs.keys },
    { href: '/site/webhooks', text: t.tabs.webhooks },
  ];
  return (
    <>
      <Tabs label={t.tabs.label} tabs={tabs} />
      <Switch>
        <Route path="/site">
          <Redirect to="/site/servers" replace />
        </Route>
        <Route path="/site/servers" component={Servers} />
        <Route path="/site/users" component={Users} />
        <Route path="/site/users/:id">{({ id }) => (/^[1-9]\d*$/.test(id) ? <UserPage id={Number(id)} /> : <NotFound />)}</Route>
        <Route path="/site/organisations" component={Organisations} />
        <Route path="/site/settings" component={Settings} />
        <Route path="/site/keys" component={Keys} />
        <Route path="/site/audit" component={Audit} />
        <Route path="/site/versions" component={Versions} />
        <Route path="/site/webhooks" component={Webhooks} />
        <Route>
          <NotFound />
        </Route>
      </Switch>
    </>
  );
}
