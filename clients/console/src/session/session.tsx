import { createContext, useContext } from 'react';
import { useQueryClient } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { client, isSignedOut } from '../lib/client.js';

export const SessionContext = createContext<Schemas['Session'] | undefined>(undefined);

/** Returns the user who is signed in, for pages within `SignedIn`. */
export function useUser(): Schemas['User'] {
  const session = useContext(SessionContext);
  if (!session) throw new Error('nobody is signed in around this component');
  return session.user;
}

/** Whether the user is an admin of the panel. */
export function useIsAdmin(): boolean {
  return useUser().role === 'admin';
}

export interface Permits {
  /** Whether the user may approve a machine of their own. Admins of the panel may approve any. */
  approve: boolean;
  /** Whether a machine can ask without anybody logging in on it. */
  anonymous: boolean;
}

/** What the panel permits the user to do with machines that ask to be approved. */
export function usePermits(): Permits {
  const admin = useIsAdmin();
  const enrollment = useContext(SessionContext)?.enrollment;
  return { approve: admin || enrollment?.ownersApprove === true, anonymous: enrollment?.anonymous ?? true };
}

/** Whether the panel hands out the agent at /install. One of an older version does not say so, and has none. */
export function useAgentDownloads(): boolean {
  const session: Partial<Schemas['Session']> | undefined = useContext(SessionContext);
  return session?.agentDownloads ?? false;
}

/** Where the sign-in page leads afterwards: a path of the console, and nothing else. */
export function returnPath(search: string): string {
  const path = new URLSearchParams(search).get('returnTo') ?? '/';
  return /^\/(?![/\\])/.test(path) ? path : '/';
}

/** The address of the sign-in page that leads back here, and says so if a session has `ended`. */
export function signInPath(ended = false): string {
  const here = location.pathname + location.search;
  const parameters = new URLSearchParams();
  if (here !== '/') parameters.set('returnTo', here);
  if (ended) parameters.set('ended', '1');
  return parameters.size > 0 ? `/login?${parameters}` : '/login';
}

/** Returns a function that ends the session and forgets what was read in it. */
export function useSignOut(): () => Promise<void> {
  const queries = useQueryClient();
  return async () => {
    try {
      await client.auth.logout();
    } catch (error) {
      if (!isSignedOut(error)) throw error;
    }
    queries.clear();
    // Loads the page anew, so that nothing of this session stays in memory.
    location.assign('/login');
  };
}
