import { useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import type { Organisation } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { Button, Confirm, Dialog, Empty, Form, Input, Loaded, Menu, MenuItem, MenuLine, PageHead, Pager, SearchBox, Table, textOf, useNotices } from '../ui/index.js';
import { given, oneOf, useChecked, userByEmail } from './data.js';
import { QuotaDialog } from './quota.js';
import { texts } from './texts.js';

type Act = { kind: 'quota' | 'delete'; of: Organisation } | { kind: 'create' };

export default function OrganisationsPage(): ReactNode {
  const t = useText(texts);
  const o = t.organisations;
  const format = useFormat();
  const { notify } = useNotices();
  const queries = useQueryClient();
  const [parameters, setParameters] = useQueryParameters();
  const [act, setAct] = useState<Act>();
  const q = parameters.get('q');
  const sort = oneOf(parameters.get('sort'), ['name', '-name', 'createdAt', '-createdAt']);
  const pages = usePages('organisations', client.organisations.list, given({ q, sort }));
  const again = () => queries.invalidateQueries({ queryKey: keys.pages('organisations') });
  const close = () => setAct(undefined);

  return (
    <>
      <PageHead
        title={o.title}
        about={o.about}
        actions={
          <Button kind="primary" onClick={() => setAct({ kind: 'create' })}>
            {o.create}
          </Button>
        }
      />
      <div className="stack">
        <SearchBox label={t.search} />
        <Loaded query={pages}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty title={q ? t.nothing : o.none} action={q && <Button onClick={() => setParameters({ q: undefined, page: undefined })}>{t.clear}</Button>}>
                {q ? t.nothingText : o.noneText}
              </Empty>
            ) : (
              <>
                <Table
                  caption={o.title}
                  items={items}
                  keyOf={({ id }) => id}
                  columns={[
                    { title: o.name, sort: 'name', cell: ({ id, name }) => <Link href={`/organisations/${id}`}>{name}</Link> },
                    { title: o.yourRole, cell: ({ role }) => (role === null ? '–' : ((o.roles as Record<string, string>)[role] ?? role)) },
                    { title: t.created, sort: 'createdAt', cell: ({ createdAt }) => <time dateTime={createdAt}>{format.date(createdAt)}</time> },
                    {
                      title: '',
                      kind: 'actions',
                      cell: (of) => (
                        <Menu label={of.name}>
                          <MenuItem onSelect={() => setAct({ kind: 'quota', of })}>{o.quota}</MenuItem>
                          <MenuLine />
                          <MenuItem bad onSelect={() => setAct({ kind: 'delete', of })}>
                            {t.delete}
                          </MenuItem>
                        </Menu>
                      ),
                    },
                  ]}
                />
                <Pager pages={pages} />
              </>
            )
          }
        </Loaded>
      </div>
      {act?.kind === 'create' && <Create onClose={close} onCreated={again} />}
      {act?.kind === 'quota' && <QuotaDialog owner={{ organisationId: act.of.id }} name={act.of.name} onClose={close} />}
      {act?.kind === 'delete' && (
        <Confirm
          title={o.deleteTitle(act.of.name)}
          action={t.delete}
          name={act.of.name}
          messages={{ conflict: o.hasDevices }}
          onClose={close}
          onConfirm={async () => {
            await client.organisations.delete(act.of.id);
            await again();
            notify(o.deleted(act.of.name));
          }}
        >
          <p>{o.deleteText}</p>
        </Confirm>
      )}
    </>
  );
}

function Create({ onClose, onCreated }: { onClose(): void; onCreated(): Promise<unknown> }): ReactNode {
  const t = useText(texts).organisations;
  const { notify } = useNotices();
  const [wrong, checked] = useChecked();
  return (
    <Dialog title={t.create} onClose={onClose}>
      <Form
        submit={t.create}
        onCancel={onClose}
        onSubmit={checked(async (data) => {
          const owner = textOf(data, 'ownerId');
          const ownerId = owner ? await userByEmail('ownerId', owner, t.noUser) : undefined;
          const { name } = await client.organisations.create({ name: textOf(data, 'name'), ...given({ ownerId }) }, { idempotencyKey: true });
          await onCreated();
          notify(t.created(name));
          onClose();
        })}
      >
        <Input label={t.name} name="name" required maxLength={100} autoComplete="off" />
        <Input label={t.owner} name="ownerId" type="email" maxLength={254} hint={t.ownerHint} error={wrong['ownerId']} autoComplete="off" />
      </Form>
    </Dialog>
  );
}
