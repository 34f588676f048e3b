import { useSyncExternalStore } from 'react';
import { client } from '../lib/client.js';

const storageKey = 'eclitunnel.reloaded';

/** How long the page is not loaded again by itself a second time, in milliseconds. */
const pauseMs = 60_000;

type Reload = 'none' | 'pending' | 'unreachable';

let state: Reload = 'none';
const listeners = new Set<() => void>();

function set(next: Reload): void {
  state = next;
  for (const listener of listeners) listener();
}

/** Notes in the tab that the page is loaded again; false if that was just now, or cannot be noted. */
function mark(): boolean {
  try {
    const last = Number(sessionStorage.getItem(storageKey));
    if (Date.now() - last < pauseMs) return false;
    sessionStorage.setItem(storageKey, String(Date.now()));
    return true;
  } catch {
    return false;
  }
}

async function reload(): Promise<void> {
  if (state === 'pending') return;
  set('pending');
  try {
    // A panel that is away has the part again when it is back; the browser's own page of an error has nothing.
    await client.service.version();
  } catch {
    set('unreachable');
    return;
  }
  if (mark()) location.reload();
  else set('none');
}

/**
 * Loads the page again when a part of it cannot be loaded: after an upgrade the panel serves
 * the parts of the new version alone. That helps once, or not at all.
 */
export function reloadAfterUpgrade(): void {
  addEventListener('vite:preloadError', () => void reload());
}

/** Whether the page is about to be loaded again, or cannot be because the panel is unreachable. */
export function useReload(): Reload {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => state,
  );
}
