import { useCallback } from 'react';
import { useLocation, useSearch } from 'wouter';

type Changes = Record<string, string | number | boolean | undefined>;

/**
 * The query parameters of the page's address, and a function that sets some of them and
 * takes those out that become undefined or empty. `replace` makes no new entry in the
 * browser's history: for what changes with each key that is pressed.
 */
export function useQueryParameters(): [URLSearchParams, (changes: Changes, options?: { replace?: boolean }) => void] {
  const search = useSearch();
  const [, navigate] = useLocation();
  const set = useCallback(
    (changes: Changes, { replace = false } = {}) => {
      const parameters = new URLSearchParams(location.search);
      for (const [name, value] of Object.entries(changes)) {
        if (value === undefined || value === '') parameters.delete(name);
        else parameters.set(name, String(value));
      }
      const text = parameters.toString();
      navigate(location.pathname + (text && `?${text}`), { replace });
    },
    [navigate],
  );
  return [new URLSearchParams(search), set];
}
