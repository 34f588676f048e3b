import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { useText } from '../lib/language.js';
import { useUser } from '../session/session.js';
import type { Group, Grouping } from './groups.js';
import type { Name, useNames } from './names.js';
import { texts } from './texts.js';

/** A name that leads to a page, `gone` if what it is of exists no more, and a mark in its place until it is read. */
function Named({ href, names, id, gone }: { href?: string; names: ReadonlyMap<number | string, Name> | undefined; id: number | string; gone: string }): ReactNode {
  const known = names?.get(id);
  if (names && !known) return <span className="faint">{gone}</span>;
  const text = known?.name ?? '…';
  return (
    <div>
      {href ? <Link href={href}>{text}</Link> : text}
      {known?.about && <div className="small faint">{known.about}</div>}
    </div>
  );
}

/** The name of a group. */
export function GroupName({ by, group, names }: { by: Grouping; group: Group; names: ReturnType<typeof useNames> }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const { allocationId, deviceId, userId, organisationId } = group;
  if (by === 'allocation' && allocationId !== null) return <Named href={`/allocations/${allocationId}`} names={names.allocations} id={allocationId} gone={t.goneAllocation(allocationId)} />;
  if (by === 'device' && deviceId !== null) return <Named href={`/devices/${deviceId}`} names={names.devices} id={deviceId} gone={t.goneDevice} />;
  if (organisationId !== null) return <Named href={`/organisations/${organisationId}`} names={names.organisations} id={organisationId} gone={t.goneOrganisation(organisationId)} />;
  if (userId === null) return by === 'owner' ? t.noOwner : t.noOrganisation;
  if (userId === user.id) return t.you;
  return user.role === 'admin' ? <Named names={names.users} id={userId} gone={t.goneUser(userId)} /> : t.user(userId);
}
