import type { Organisation } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { Link, useLocation } from 'wouter';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { useIsAdmin } from '../session/session.js';
import { Button, Dialog, Empty, Form, Input, Loaded, PageHead, Pager, SearchBox, Table, textOf, useNotices } from '../ui/index.js';
import { useChanged, useMayCreate, type Role } from './data.js';
import { texts } from './texts.js';

const sorts = ['name', '-name', 'createdAt', '-createdAt'] as const;

/** The organisations of the user, and all of them for admins of the panel. */
export function List(): ReactNode {
  const t = useText(texts);
  const admin = useIsAdmin();
  const mayCreate = useMayCreate();
  const [creating, setCreating] = useState(false);
  const [parameters, setParameters] = useQueryParameters();
  const q = parameters.get('q')?.trim();
  const sort = sorts.find((one) => one === parameters.get('sort'));
  const pages = usePages('organisations', client.organisations.list, { ...(q && { q }), ...(sort && { sort }) });
  const create = mayCreate && (
    <Button kind="primary" onClick={() => setCreating(true)}>
      {t.create}
    </Button>
  );
  return (
    <>
      <PageHead title={t.title} about={admin ? t.aboutAdmin : t.about} actions={create} />
      <Loaded query={pages}>
        {({ items }) =>
          items.length === 0 && !q && pages.onFirst ? (
            <Empty title={t.none} action={create}>
              {mayCreate ? t.noneText : t.noneMayNot}
            </Empty>
          ) : (
            <div className="stack">
              <div className="row">
                <SearchBox label={t.search} />
              </div>
              {items.length === 0 ? (
                <Empty title={t.nothing} action={<Button onClick={() => setParameters({ q: undefined, page: undefined })}>{t.clear}</Button>}>
                  {t.nothingText}
                </Empty>
              ) : (
                <Organisations items={items} busy={pages.isPlaceholderData} />
              )}
              <Pager pages={pages} />
            </div>
          )
        }
      </Loaded>
      {creating && <Create onClose={() => setCreating(false)} />}
    </>
  );
}

function Organisations({ items, busy }: { items: readonly Organisation[]; busy: boolean }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  return (
    <div aria-busy={busy}>
      <Table
        caption={t.title}
        items={items}
        keyOf={({ id }) => id}
        columns={[
          { title: t.name, sort: 'name', cell: ({ id, name }) => <Link href={`/organisations/${id}`}>{name}</Link> },
          { title: t.yourRole, cell: ({ role }) => (role === null ? <span className="faint">{t.notMember}</span> : t.roles[role as Role]) },
          { title: t.created, sort: 'createdAt', cell: ({ createdAt }) => <time dateTime={createdAt}>{format.date(createdAt)}</time> },
        ]}
      />
    </div>
  );
}

function Create({ onClose }: { onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const changed = useChanged();
  const [, navigate] = useLocation();
  return (
    <Dialog title={t.create} onClose={onClose}>
      <p className="faint">{t.createText}</p>
      <Form
        submit={t.createDo}
        messages={{ conflict: t.tooMany, forbidden: t.noneMayNot }}
        onCancel={onClose}
        onSubmit={async (data) => {
          const { id, name } = await client.organisations.create({ name: textOf(data, 'name') }, { idempotencyKey: true });
          void changed();
          notify(t.createdNow(name));
          onClose();
          navigate(`/organisations/${id}`);
        }}
      >
        <Input name="name" label={t.name} required maxLength={100} autoComplete="off" autoFocus />
      </Form>
    </Dialog>
  );
}
