import { lazy, Suspense, type ComponentType, type ReactNode } from 'react';
import { Redirect, Route, Switch, useLocation, useSearch } from 'wouter';
import { SignedIn } from './session/signed-in.js';
import { NotFound } from './shell/not-found.js';
import { PageErrors } from './shell/page-errors.js';
import { Plain, Shell } from './shell/shell.js';
import { Loading } from './ui/index.js';

// A part of the console is loaded when somebody opens it. The first segment of each path is
// known to the panel as well, which serves the console there (server/internal/web).
const Overview = lazy(() => import('./start/overview.js'));
const Start = lazy(() => import('./start/start.js'));
const Devices = lazy(() => import('./devices/devices.js'));
const Allocations = lazy(() => import('./allocations/allocations.js'));
const Traffic = lazy(() => import('./traffic/traffic.js'));
const Organisations = lazy(() => import('./organisation/organisations.js'));
const Account = lazy(() => import('./account/account.js'));
const Site = lazy(() => import('./site/site.js'));
const Approve = lazy(() => import('./approve/approve.js'));
const SignIn = lazy(() => import('./session/sign-in.js'));
const LoginFailed = lazy(() => import('./session/login-failed.js'));
const Password = lazy(() => import('./password/password.js'));
const Invitation = lazy(() => import('./invitation/invitation.js'));

function Part({ of: Page }: { of: ComponentType }): ReactNode {
  const [path] = useLocation();
  return (
    <PageErrors key={path.split('/')[1]}>
      <Suspense fallback={<Loading />}>
        <Page />
      </Suspense>
    </PageErrors>
  );
}

/** EcliPanel's address of the page on which a device is approved. */
function Verify(): ReactNode {
  const code = new URLSearchParams(useSearch()).get('user_code');
  return <Redirect to={`/device${code ? `?${new URLSearchParams({ code })}` : ''}`} replace />;
}

export function App(): ReactNode {
  return (
    <Switch>
      <Route path="/login">
        <Plain>
          <Part of={SignIn} />
        </Plain>
      </Route>
      <Route path="/login-failed">
        <Plain>
          <Part of={LoginFailed} />
        </Plain>
      </Route>
      <Route path="/password">
        <Plain>
          <Part of={Password} />
        </Plain>
      </Route>
      <Route path="/invitation">
        <Plain>
          <Part of={Invitation} />
        </Plain>
      </Route>
      <Route path="/tunnel/verify">
        <Verify />
      </Route>
      <Route>
        <SignedIn>
          <Shell>
            <Switch>
              <Route path="/">
                <Part of={Overview} />
              </Route>
              <Route path="/start">
                <Part of={Start} />
              </Route>
              <Route path="/device">
                <Part of={Approve} />
              </Route>
              <Route path="/devices/*?">
                <Part of={Devices} />
              </Route>
              <Route path="/allocations/*?">
                <Part of={Allocations} />
              </Route>
              <Route path="/traffic">
                <Part of={Traffic} />
              </Route>
              <Route path="/organisations/*?">
                <Part of={Organisations} />
              </Route>
              <Route path="/account/*?">
                <Part of={Account} />
              </Route>
              <Route path="/site/*?">
                <Part of={Site} />
              </Route>
              <Route>
                <NotFound />
              </Route>
            </Switch>
          </Shell>
        </SignedIn>
      </Route>
    </Switch>
  );
}
