import { useEffect } from 'react';

/**
 * Returns the secret after the # of the page's address, and takes it out of the address bar
 * and the history: it works once, but until then it is a secret.
 */
export function takeLinkToken(): string {
  const token = location.hash.slice(1);
  if (token) history.replaceState(history.state, '', location.pathname);
  return token;
}

/** Follows a second link that is opened in the same tab: it changes what follows the # alone. */
export function useNextLink(): void {
  useEffect(() => {
    const load = (): void => location.reload();
    addEventListener('hashchange', load);
    return () => removeEventListener('hashchange', load);
  }, []);
}
