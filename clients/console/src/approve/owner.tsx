import { keepPreviousData, useQuery } from '@tanstack/react-query';
import type { Schemas } from '@eclitunnel/sdk';
import { useEffect, useId, useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Input, Select, textOf } from '../ui/index.js';
import { texts } from './texts.js';

/** Whom a device is assigned to, as the approval takes it; empty for who asked, or the caller. */
export type Owner = Pick<Schemas['DeviceApproval'], 'ownerId' | 'organisationId'>;

/** The email in the form belongs to nobody on the panel. */
export class NobodyFound extends Error {}

/** Reads the choice of `OwnerFields` from their form. */
export async function ownerOf(data: FormData): Promise<Owner> {
  const [kind, id] = textOf(data, 'owner').split(':');
  if (kind === 'user') return { ownerId: Number(id) };
  if (kind === 'organisation') return { organisationId: Number(id) };
  if (kind !== 'person') return {};
  const email = textOf(data, 'person').toLowerCase();
  const found = await client.users.list({ search: email, limit: 10 });
  const user = found.find((user) => user.email.toLowerCase() === email);
  if (!user) throw new NobodyFound();
  return { ownerId: user.id };
}

interface OwnerFieldsProps {
  pending: Schemas['PendingEnrollment'];
  /** Whether the email that was entered belongs to nobody. */
  nobodyFound: boolean;
  /** Shows nothing to those who have no organisation to choose. */
  quiet?: boolean;
}

/** Lets a person choose whom a device belongs to: themselves, an organisation of theirs, or, as an admin, anybody. */
export function OwnerFields({ pending, nobodyFound, quiet = false }: OwnerFieldsProps): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const admin = useIsAdmin();
  const organisations = useQuery({
    queryKey: keys.manyOrganisations,
    queryFn: ({ signal }) => client.organisations.list({ limit: 1000 }, { signal }),
  });
  const [choice, setChoice] = useState('');
  const mine = pending.ownerId === user.id || (pending.ownerId === null && pending.organisationId === null);
  const managed = (organisations.data ?? []).filter(({ id, role }) => id !== pending.organisationId && (admin || role === 'owner' || role === 'admin'));
  const asked = pending.ownerEmail ?? (pending.organisationName ? t.organisation(pending.organisationName) : '');
  if (quiet && mine && managed.length === 0) return null;
  return (
    <>
      <Select label={t.owner} name="owner" value={choice} onChange={(event) => setChoice(event.target.value)}>
        {!mine && <option value="">{t.asAsked(asked)}</option>}
        <option value={mine ? '' : `user:${user.id}`}>{t.me(user.email)}</option>
        {managed.map(({ id, name }) => (
          <option key={id} value={`organisation:${id}`}>
            {t.organisation(name)}
          </option>
        ))}
        {admin && <option value="person">{t.person}</option>}
      </Select>
      {choice === 'person' && <Person nobodyFound={nobodyFound} />}
    </>
  );
}

/** A field for the email of a user, with those that contain what was typed. */
function Person({ nobodyFound }: { nobodyFound: boolean }): ReactNode {
  const t = useText(texts);
  const list = useId();
  const [text, setText] = useState('');
  const [q, setQ] = useState('');
  useEffect(() => {
    const timer = setTimeout(() => setQ(text.trim()), 250);
    return () => clearTimeout(timer);
  }, [text]);
  const users = useQuery({
    queryKey: keys.suggestedUsers(q),
    queryFn: ({ signal }) => client.users.list(q ? { q, limit: 10 } : { limit: 10 }, { signal }),
    placeholderData: keepPreviousData,
  });
  return (
    <>
      <Input label={t.personEmail} name="person" type="email" hint={t.personHint} error={nobodyFound ? t.nobodyFound : undefined} list={list} autoComplete="off" spellCheck={false} required maxLength={254} value={text} onChange={(event) => setText(event.target.value)} autoFocus />
      <datalist id={list}>
        {users.data?.map(({ id, email }) => (
          <option key={id} value={email} />
        ))}
      </datalist>
    </>
  );
}
