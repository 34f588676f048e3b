import type { ReactNode } from 'react';
import { Route, Switch } from 'wouter';
import { useText } from '../lib/language.js';
import { useUser } from '../session/session.js';
import { NotFound } from '../shell/not-found.js';
import { PageHead, Tabs } from '../ui/index.js';
import { Keys } from './keys.js';
import { keysTexts } from './keys-texts.js';
import { Limits } from './limits.js';
import { Profile } from './profile.js';
import { Sessions } from './sessions.js';
import { texts } from './texts.js';
import { Webhooks } from './webhooks.js';
import { webhooksTexts } from './webhooks-texts.js';
import './account.css';

/** The pages of the person's own account. */
export default function Account(): ReactNode {
  const t = useText(texts);
  const keys = useText(keysTexts);
  const webhooks = useText(webhooksTexts);
  const owner = { userId: useUser().id };
  return (
    <>
      <Tabs
        label={t.tabs.label}
        tabs={[
          { href: '/account', text: t.tabs.profile },
          { href: '/account/sessions', text: t.tabs.sessions },
          { href: '/account/keys', text: t.tabs.keys },
          { href: '/account/webhooks', text: t.tabs.webhooks },
          { href: '/account/limits', text: t.tabs.limits },
        ]}
      />
      <Switch>
        <Route path="/account" component={Profile} />
        <Route path="/account/sessions" component={Sessions} />
        <Route path="/account/keys">
          <PageHead title={keys.title} about={keys.about} />
          <Keys owner={owner} />
        </Route>
        <Route path="/account/webhooks">
          <PageHead title={webhooks.title} about={webhooks.about} />
          <Webhooks owner={owner} />
        </Route>
        <Route path="/account/limits" component={Limits} />
        <Route>
          <NotFound />
        </Route>
      </Switch>
    </>
  );
}
