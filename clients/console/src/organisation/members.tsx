import type { Organisation, RequestOptions, Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import { client } from '../lib/client.js';
import { useExplain } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Button, ButtonLink, Confirm, Empty, Loaded, Menu, MenuItem, MenuLine, Pager, Table, useNotices } from '../ui/index.js';
import { roles, useChanged, useRights, type Rights, type Role } from './data.js';
import { Email } from './email.js';
import { Leave } from './leave.js';
import { texts } from './texts.js';

type Member = Schemas['Member'];
/** Where a page of the list begins. */
type Position = NonNullable<Parameters<typeof client.organisations.members>[1]>;

/** What waits for a confirmation: a removal, or that the user takes rights from themselves. */
type Act = { kind: 'remove'; of: Member } | { kind: 'step-down'; of: Member; role: Role } | { kind: 'leave' };

interface MembersProps {
  organisation: Organisation;
  /** Told when the user has left. */
  onLeaving(leaving: boolean): void;
}

/** Who belongs to an organisation, and what each may do. */
export function Members({ organisation, onLeaving }: MembersProps): ReactNode {
  const t = useText(texts);
  const { id, name } = organisation;
  const rights = useRights(organisation);
  const [act, setAct] = useState<Act>();
  const setRole = useSetRole(id);
  const close = (): void => setAct(undefined);
  const list = (query?: Position, options?: RequestOptions) => client.organisations.members(id, query, options);
  const pages = usePages('members', list, {} as Position, { of: id });

  return (
    <section className="stack" aria-label={t.members}>
      <div className="row apart">
        <h2>{t.members}</h2>
        {rights.manage && <ButtonLink href={`/organisations/${id}/invitations`}>{t.invite}</ButtonLink>}
      </div>
      <Roles manage={rights.manage} />
      <Loaded query={pages}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title={t.noMembers} action={pages.onFirst ? undefined : <Button onClick={pages.first}>{t.toFirst}</Button>}>
              {t.noMembersText}
            </Empty>
          ) : (
            <div className="stack" aria-busy={pages.isPlaceholderData}>
              <MemberTable items={items} rights={rights} onAct={setAct} onRole={setRole} />
              <Pager pages={pages} />
            </div>
          )
        }
      </Loaded>
      {act?.kind === 'remove' && <Remove organisation={organisation} member={act.of} onClose={close} />}
      {act?.kind === 'leave' && <Leave organisation={organisation} onLeaving={onLeaving} onClose={close} />}
      {act?.kind === 'step-down' && (
        <Confirm title={t.stepDownTitle(t.roles[act.role])} action={t.stepDown} messages={{ conflict: t.onlyOwner }} onClose={close} onConfirm={() => setRole(act.of, act.role, false)}>
          <p>{t.stepDownText[act.role as 'admin' | 'member'](name)}</p>
        </Confirm>
      )}
    </section>
  );
}

/** What each role may do. */
function Roles({ manage }: { manage: boolean }): ReactNode {
  const t = useText(texts);
  return (
    <details className="organisation-roles">
      <summary>{t.whatRoles}</summary>
      <dl className="facts">
        {[...roles].reverse().map((role) => (
          <div key={role}>
            <dt>{t.roles[role]}</dt>
            <dd>{t.roleText[role]}</dd>
          </div>
        ))}
      </dl>
      {!manage && <p className="small faint">{t.memberMayNot}</p>}
    </details>
  );
}

/** Returns a function that changes a role, and says so; `undo` lets it be taken back. */
function useSetRole(organisationId: number): (member: Member, role: Role, undo?: boolean) => Promise<void> {
  const t = useText(texts);
  const { notify } = useNotices();
  const changed = useChanged();
  return async ({ userId, email, role: before }, role, undo = true) => {
    const set = async (role: Role): Promise<void> => {
      await client.organisations.updateMember(organisationId, userId, { role });
      await changed();
    };
    await set(role);
    notify(t.roleIs(email, t.roles[role]), undo ? () => set(before) : undefined);
  };
}

interface MemberTableProps {
  items: readonly Member[];
  rights: Rights;
  onAct(act: Act): void;
  onRole(member: Member, role: Role): Promise<void>;
}

function MemberTable({ items, rights, onAct, onRole }: MemberTableProps): ReactNode {
  const t = useText(texts);
  const me = useUser();
  const admin = useIsAdmin();
  const email = ({ userId, email }: Member): ReactNode => (
    <span>
      {admin ? (
        <Link href={`/site/users/${userId}`}>
          <Email of={email} />
        </Link>
      ) : (
        <Email of={email} />
      )}
      {userId === me.id && <span className="faint small"> ({t.you})</span>}
    </span>
  );
  return (
    <Table
      caption={t.members}
      items={items}
      keyOf={({ userId }) => userId}
      columns={[
        { title: t.email, cell: email },
        { title: t.role, cell: ({ role }) => t.roles[role] },
        ...(rights.manage ? [{ title: '', kind: 'actions' as const, cell: (member: Member) => <MemberMenu member={member} rights={rights} onAct={onAct} onRole={onRole} /> }] : []),
      ]}
    />
  );
}

/** What the user may do with a member; only owners make and unmake owners. */
function MemberMenu({ member, rights: { own }, onAct, onRole }: { member: Member } & Omit<MemberTableProps, 'items'>): ReactNode {
  const t = useText(texts);
  const me = useUser();
  const explain = useExplain();
  const { notify } = useNotices();
  const self = member.userId === me.id;
  if (member.role === 'owner' && !own) return <span className="small faint">{t.ownersOnly}</span>;
  const choose = (role: Role): void => {
    // Nobody gets rights back that they gave away.
    if (self && roles.indexOf(role) < roles.indexOf(member.role)) onAct({ kind: 'step-down', of: member, role });
    else void onRole(member, role).catch((error: unknown) => notify(explain(error, { conflict: t.onlyOwner }).message));
  };
  return (
    <Menu label={member.email}>
      {[...roles]
        .reverse()
        .filter((role) => role !== member.role && (own || role !== 'owner'))
        .map((role) => (
          <MenuItem key={role} onSelect={() => choose(role)}>
            {t.make[role]}
          </MenuItem>
        ))}
      <MenuLine />
      <MenuItem bad onSelect={() => onAct(self ? { kind: 'leave' } : { kind: 'remove', of: member })}>
        {self ? t.leave : t.remove}
      </MenuItem>
    </Menu>
  );
}

function Remove({ organisation: { id, name }, member: { userId, email }, onClose }: { organisation: Organisation; member: Member; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const changed = useChanged();
  return (
    <Confirm
      title={t.removeTitle(email, name)}
      action={t.remove}
      messages={{ conflict: t.onlyOwner }}
      onClose={onClose}
      onConfirm={async () => {
        await client.organisations.removeMember(id, userId);
        await changed();
        notify(t.removed(email));
      }}
    >
      <p>{t.removeText}</p>
    </Confirm>
  );
}
