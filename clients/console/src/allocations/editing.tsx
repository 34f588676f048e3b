import { useQuery, type UseQueryResult } from '@tanstack/react-query';
import { isCode, type AllocationDetail, type Schemas } from '@eclitunnel/sdk';
import { tunnelKeys, useUpdateAllocation } from '@eclitunnel/sdk/react';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { Note } from '../ui/index.js';
import { useRereadPages } from './data.js';
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
    queryKey: [...tunnelKeys(client).all, 'versions', 'allocation', id],
    queryFn: ({ signal }) => readVersion(id, signal),
    staleTime: Infinity,
    gcTime: 0,
    refetchOnReconnect: false,
  });
}

export interface Editing {
  /** What the form is based on. */
  allocation: AllocationDetail;
  /** What somebody else has changed meanwhile; the form then is based on that. */
  before: AllocationDetail | undefined;
  /** Saves a change if nobody else has changed the allocation since it was read. */
  save(body: Schemas['AllocationPatch']): Promise<void>;
}

export function useEditing(first: Version): Editing {
  const update = useUpdateAllocation();
  const reread = useRereadPages();
  const [base, setBase] = useState(first);
  const [before, setBefore] = useState<AllocationDetail>();
  const { id } = first.allocation;
  return {
    allocation: base.allocation,
    before,
    async save(body) {
      try {
        await update.mutateAsync({ id, body, ifMatch: base.etag });
      } catch (error) {
        if (isCode(error, 'precondition_failed')) {
          setBefore(base.allocation);
          setBase(await readVersion(id));
        }
        throw error;
      }
      setBefore(undefined);
      setBase(await readVersion(id));
      await reread();
    },
  };
}

/** The values of an allocation that a form can change, by the name of the field. */
function valuesOf({ name, localHost, localPort, port, enabled, publicHost, options }: AllocationDetail): Record<string, unknown> {
  return { name, localHost, localPort, port, enabled, publicHost, ...options };
}

/** Says what somebody else has changed while a form was open, and what saving it again does. */
export function Overtaken({ editing: { before, allocation }, labels }: { editing: Editing; labels: Readonly<Record<string, string>> }): ReactNode {
  const t = useText(texts);
  if (!before) return null;
  const [old, now] = [valuesOf(before), valuesOf(allocation)];
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
