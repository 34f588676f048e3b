import { useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useExplain } from '../lib/errors.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { useUser } from '../session/session.js';
import { Button, Empty, Filter, Loaded, Menu, MenuItem, MenuLine, PageHead, Pager, SearchBox, State, Table, useNotices } from '../ui/index.js';
import { given, oneOf } from './data.js';
import { texts } from './texts.js';
import { UserDialog, useSuspend, type UserAct } from './user-dialogs.js';

type User = Schemas['User'];

export default function UsersPage(): ReactNode {
  const all = useText(texts);
  const t = all.users;
  const format = useFormat();
  const me = useUser();
  const [parameters, setParameters] = useQueryParameters();
  const [act, setAct] = useState<UserAct>();
  const role = oneOf(parameters.get('role'), ['user', 'admin']);
  const state = oneOf(parameters.get('suspended'), ['true', 'false']);
  const sort = oneOf(parameters.get('sort'), ['email', '-email', 'createdAt', '-createdAt']);
  const q = parameters.get('q');
  const pages = usePages('users', client.users.list, given({ q, role, sort, suspended: state && state === 'true' }));

  return (
    <>
      <PageHead
        title={t.title}
        about={t.about}
        actions={
          <Button kind="primary" onClick={() => setAct({ kind: 'create' })}>
            {t.create}
          </Button>
        }
      />
      <div className="stack">
        <div className="row">
          <SearchBox label={t.search} />
          <Filter name="role" label={t.allRoles} options={[{ value: 'user', text: t.roles.user }, { value: 'admin', text: t.roles.admin }]} />
          <Filter name="suspended" label={t.allStates} options={[{ value: 'false', text: t.active }, { value: 'true', text: t.suspended }]} />
        </div>
        <Loaded query={pages}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty title={all.nothing} action={<Button onClick={() => setParameters({ q: undefined, role: undefined, suspended: undefined, page: undefined })}>{all.clear}</Button>}>
                {t.emptyText}
              </Empty>
            ) : (
              <>
                <Table
                  caption={t.title}
                  items={items}
                  keyOf={({ id }) => id}
                  columns={[
                    {
                      title: t.email,
                      sort: 'email',
                      cell: ({ id, email }) => (
                        <span>
                          <Link href={`/site/users/${id}`}>{email}</Link>
                          {id === me.id && <span className="faint small"> ({t.you})</span>}
                        </span>
                      ),
                    },
                    { title: t.role, cell: (user) => t.roles[user.role] },
                    { title: t.state, cell: ({ suspended }) => <State tone={suspended ? 'bad' : 'good'}>{suspended ? t.suspended : t.active}</State> },
                    { title: all.created, sort: 'createdAt', cell: ({ createdAt }) => <time dateTime={createdAt}>{format.date(createdAt)}</time> },
                    { title: '', kind: 'actions', cell: (user) => <UserMenu user={user} onAct={setAct} /> },
                  ]}
                />
                <Pager pages={pages} />
              </>
            )
          }
        </Loaded>
      </div>
      <UserDialog act={act} onClose={setAct} />
    </>
  );
}

/** What can be done with a user; nobody shuts themselves out. */
export function UserMenu({ user, onAct }: { user: User; onAct(act: UserAct): void }): ReactNode {
  const all = useText(texts);
  const t = all.users;
  const me = useUser();
  const suspend = useSuspend();
  const explain = useExplain();
  const { notify } = useNotices();
  const own = user.id === me.id;
  return (
    <Menu label={user.email}>
      <MenuItem onSelect={() => onAct({ kind: 'quota', of: user })}>{all.quota.change}</MenuItem>
      <MenuItem onSelect={() => onAct({ kind: 'email', of: user })}>{t.emailChange}</MenuItem>
      <MenuItem disabled={user.suspended} onSelect={() => onAct({ kind: 'link', of: user })}>
        {t.link}
      </MenuItem>
      <MenuItem disabled={own} onSelect={() => onAct({ kind: 'role', of: user })}>
        {user.role === 'admin' ? t.makeUser : t.makeAdmin}
      </MenuItem>
      <MenuItem disabled={own} onSelect={() => void suspend(user).catch((error: unknown) => notify(explain(error, { conflict: t.lastAdmin }).message))}>
        {user.suspended ? t.resume : t.suspend}
      </MenuItem>
      <MenuLine />
      <MenuItem bad disabled={own} onSelect={() => onAct({ kind: 'delete', of: user })}>
        {all.delete}
      </MenuItem>
    </Menu>
  );
}
