import { QueryClient } from '@tanstack/react-query';
import { createClient, isCode, NetworkError, TimeoutError } from '@eclitunnel/sdk';

/** The client of the panel that serves these pages. The browser sends the session's cookie. */
export const client = createClient();

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      // The client repeats what can be repeated.
      retry: (attempt, error) => attempt < 2 && (error instanceof NetworkError || error instanceof TimeoutError),
    },
    mutations: { retry: false, networkMode: 'always' },
  },
});

/** Reports whether an error says that nobody is signed in. */
export function isSignedOut(error: unknown): boolean {
  return isCode(error, 'unauthorized');
}
