import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import { isCode, type AllocationDetail, type Schemas } from '@eclitunnel/sdk';
import { useUpdateAllocation } from '@eclitunnel/sdk/react';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Note } from '../ui/index.js';
import { useRereadPages } from './data.js';
import { linesOf } from './label-lines.js';
import { texts } from './texts.js';

/** An allocation as it was read, and the version that a change of it is based on. */
export interface Version {
  allocation: AllocationDetail;
  etag: string | undefined;
}

async function readVersion(id: number, signal?: AbortSignal): Promise<Version> {
  const { data, etag } = await client.allocations.get(id, { signal }).withResponse();
  return { allocation: data, etag };
}

/** Reads an allocation for a form, once: what is being edited does not change under the person's hands. */
export function useVersion(id: number): UseQueryResult<Version> {
  return useQuery({
    queryKey: keys.edited('allocation', id),
    queryFn: ({ signal }) => readVersion(id, signal),
    staleTime: Infinity,
    gcTime: 0,
    refetchOnReconnect: false,
  });
}

export interface Editing {
  /** What the person began with. What differs from it in the form, the person has changed. */
  allocation: AllocationDetail;
  /** What it is now, if somebody else has changed it since; saving again then puts the person's changes on top. */
  now: AllocationDetail | undefined;
  /** The number of changes saved: a form that stays open shows anew what came of each. */
  saved: number;
  /** Saves a change if nobody else has changed the allocation since it was read last. */
  save(body: Schemas['AllocationPatch']): Promise<void>;
}

export function useEditing(version: Version): Editing {
  const update = useUpdateAllocation();
  const reread = useRereadPages();
  const [{ first, last, saved }, setState] = useState({ first: version, last: version, saved: 0 });
  const { id } = version.allocation;
  return {
    allocation: first.allocation,
    now: last === first ? undefined : last.allocation,
    saved,
    async save(body) {
      try {
        await update.mutateAsync({ id, body, ifMatch: last.etag });
      } catch (error) {
        if (isCode(error, 'precondition_failed')) {
          const now = await readVersion(id);
          setState((state) => ({ ...state, last: now }));
        }
        throw error;
      }
      const now = await readVersion(id);
      setState({ first: now, last: now, saved: saved + 1 });
      await reread();
    },
  };
}

/** The values of an allocation that a form can change, by the name of the field. */
function valuesOf({ name, localHost, localPort, port, enabled, publicHost, labels, options }: AllocationDetail): Record<string, unknown> {
  return { name, localHost, localPort, port, enabled, publicHost, labels: linesOf(labels), ...options };
}

/** Says what somebody else has changed while a form was open, and what saving it again does. */
export function Overtaken({ editing: { allocation, now: current }, labels }: { editing: Editing; labels: Readonly<Record<string, string>> }): ReactNode {
  const t = useText(texts);
  if (!current) return null;
  const [old, now] = [valuesOf(allocation), valuesOf(current)];
  const changed = [...new Set([...Object.keys(old), ...Object.keys(now)])].filter((name) => JSON.stringify(old[name]) !== JSON.stringify(now[name]));
  const text = (value: unknown): string => {
    if (value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0)) return t.nothing;
    if (typeof value === 'boolean') return value ? t.yes : t.no;
    return Array.isArray(value) ? value.join(', ') : String(value);
  };
  return (
    <Note tone="warn" live>
      <p>{t.overtaken}</p>
      <ul>
        {changed.map((name) => (
          <li key={name}>
            {labels[name] ?? name}: {text(old[name])} → <strong>{text(now[name])}</strong>
          </li>
        ))}
      </ul>
      <p>{t.overtakenText}</p>
    </Note>
  );
}
