import { useState } from 'react';
import { likelySystem, systems, type System } from './systems.js';

/** What the person has chosen for a machine that has not asked yet. */
export interface Draft {
  name: string;
  system: System;
  tag: string;
  /** The devices that the person had when an admin was to approve a further one. */
  known?: readonly string[];
}

const storageKey = 'eclitunnel.start';

/** A new tag: 128 random bits in base64url, beginning with what no shell or flag parser minds. */
function newTag(): string {
  for (;;) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const tag = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
    if (/^\w/.test(tag)) return tag;
  }
}

function stored(): Draft {
  const draft: Draft = { name: '', system: likelySystem(), tag: newTag() };
  try {
    const old = JSON.parse(sessionStorage.getItem(storageKey) ?? '{}') as Partial<Draft>;
    if (typeof old.name === 'string') draft.name = old.name;
    if (old.system && systems.includes(old.system)) draft.system = old.system;
    if (Array.isArray(old.known)) draft.known = old.known;
    if (typeof old.tag === 'string' && /^[\w-]{22}$/.test(old.tag)) draft.tag = old.tag;
  } catch {
    // What another version of the page has stored is of no use.
  }
  sessionStorage.setItem(storageKey, JSON.stringify(draft));
  return draft;
}

/**
 * Returns the draft of this tab, which survives that the page is loaded again. It is not in
 * the page's address: a link with somebody else's tag would show their machine as one's own.
 */
export function useDraft(): [Draft, (changes: Partial<Draft>) => void] {
  const [draft, setDraft] = useState(stored);
  return [
    draft,
    (changes) => {
      const changed = { ...draft, ...changes };
      sessionStorage.setItem(storageKey, JSON.stringify(changed));
      setDraft(changed);
    },
  ];
}

/** Forgets the draft: its machine is approved, and the next one needs a tag of its own. */
export function forgetDraft(): void {
  sessionStorage.removeItem(storageKey);
}
