import { useQuery, useQueryClient } from '@tanstack/react-query';
import { tunnelQueries, TunnelProvider } from '@eclitunnel/sdk/react';
import { useEffect, type ReactNode } from 'react';
import { Redirect } from 'wouter';
import { client, isSignedOut } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { ErrorNote, Loading } from '../ui/index.js';
import { SessionContext, signInPath } from './session.js';
import { SessionWatch } from './watch.js';

/** Shows its children to who is signed in; anybody else is led to the sign-in page. */
export function SignedIn({ children }: { children: ReactNode }): ReactNode {
  const queries = useQueryClient();
  const session = useQuery({ ...tunnelQueries(client).session(), staleTime: 60_000, refetchOnWindowFocus: true });

  useEffect(
    // Any request may be the first to learn that the session has ended.
    () =>
      queries.getQueryCache().subscribe(({ type, query }) => {
        if (type !== 'updated' || !isSignedOut(query.state.error)) return;
        if (query.queryKey.at(-1) !== 'session') void queries.invalidateQueries({ queryKey: keys.session });
      }),
    [queries],
  );

  // A session that was read before has ended while its pages were open.
  if (isSignedOut(session.error)) return <Redirect to={signInPath(session.data !== undefined)} replace />;
  if (session.data) {
    return (
      <SessionContext value={session.data}>
        <TunnelProvider client={client} user={session.data.user.id}>
          <SessionWatch />
          {children}
        </TunnelProvider>
      </SessionContext>
    );
  }
  return session.isError ? (
    <main className="plain">
      <ErrorNote error={session.error} onAgain={() => void session.refetch()} />
    </main>
  ) : (
    <Loading />
  );
}
