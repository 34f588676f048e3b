import { useQuery } from '@tanstack/react-query';
import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { useOrganisations } from '../allocations/data.js';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { texts } from './texts.js';

/** To whom a device belongs, by name where the user may know it. */
export function Owner({ device: { ownerId, organisationId, kind, approved } }: { device: Device }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  if (ownerId === user.id) return t.you(user.email);
  if (ownerId !== null) return <Person id={ownerId} />;
  if (organisationId !== null) return <Organisation id={organisationId} />;
  return kind === 'server' && approved ? t.everybody : t.nobodyYet;
}

function Person({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const admin = useIsAdmin();
  const person = useQuery({
    queryKey: keys.user(id),
    queryFn: ({ signal }) => client.users.get(id, { signal }),
    enabled: admin,
    staleTime: 60_000,
  }).data;
  if (!admin) return t.user(id);
  return <Link href={`/site/users/${id}`}>{person?.email ?? t.user(id)}</Link>;
}

function Organisation({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const listed = useOrganisations();
  const known = listed.data?.find((one) => one.id === id)?.name;
  const one = useQuery({
    queryKey: keys.organisation(id),
    queryFn: ({ signal }) => client.organisations.get(id, { signal }),
    enabled: !known && !listed.isPending,
    staleTime: 60_000,
  }).data;
  return <Link href={`/organisations/${id}`}>{known ?? one?.name ?? t.organisation(id)}</Link>;
}
