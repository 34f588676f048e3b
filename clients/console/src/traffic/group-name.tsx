import { useQuery } from '@tanstack/react-query';
import { isCode } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import type { Group, Grouping } from './groups.js';
import { texts } from './texts.js';

/** How long a name is not read again, in milliseconds. */
const staleTime = 60_000;

/** Shows a name that is read, and `gone` if what it is of exists no more. Until then its place is kept. */
function Named({ href, name, error, gone, children }: { href: string; name: string | undefined; error: unknown; gone: string; children?: ReactNode }): ReactNode {
  if (isCode(error, 'not_found')) return <span className="faint">{gone}</span>;
  return (
    <div>
      <Link href={href}>{name ?? '…'}</Link>
      {children && <div className="small faint">{children}</div>}
    </div>
  );
}

function PortName({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const { data, error } = useQuery({ ...tunnelQueries(client).allocation(id), staleTime });
  return (
    <Named href={`/allocations/${id}`} name={data && (data.name || data.publicAddress)} error={error} gone={t.goneAllocation(id)}>
      {data?.name && data.publicAddress}
    </Named>
  );
}

function DeviceName({ id }: { id: string }): ReactNode {
  const t = useText(texts);
  const { data, error } = useQuery({ ...tunnelQueries(client).device(id), staleTime });
  return <Named href={`/devices/${id}`} name={data?.name} error={error} gone={t.goneDevice} />;
}

function OrganisationName({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const { data, error } = useQuery({ queryKey: ['console', 'organisation', id], queryFn: ({ signal }) => client.organisations.get(id, { signal }), staleTime });
  return <Named href={`/organisations/${id}`} name={data?.name} error={error} gone={t.goneOrganisation(id)} />;
}

function UserName({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const admin = useIsAdmin();
  const { data, error } = useQuery({ queryKey: ['console', 'user', id], queryFn: ({ signal }) => client.users.get(id, { signal }), staleTime, enabled: admin && id !== user.id });
  if (id === user.id) return t.you;
  return isCode(error, 'not_found') ? <span className="faint">{t.goneUser(id)}</span> : (data?.email ?? t.user(id));
}

/** The name of a group, which leads to the page of what it is of. */
export function GroupName({ by, group: { allocationId, deviceId, userId, organisationId } }: { by: Grouping; group: Group }): ReactNode {
  const t = useText(texts);
  if (by === 'allocation' && allocationId !== null) return <PortName id={allocationId} />;
  if (by === 'device' && deviceId !== null) return <DeviceName id={deviceId} />;
  if (organisationId !== null) return <OrganisationName id={organisationId} />;
  if (userId !== null) return <UserName id={userId} />;
  return by === 'owner' ? t.noOwner : t.noOrganisation;
}
