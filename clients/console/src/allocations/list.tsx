import type { Allocation, Schemas } from '@eclitunnel/sdk';
import { useMemo, useState, type ReactNode } from 'react';
import { Link, Redirect } from 'wouter';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { ownerQuery, withOwner } from '../lib/owner-filter.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Button, ButtonLink, Empty, Filter, Loaded, PageHead, Pager, SearchBox, Table, type Column } from '../ui/index.js';
import { Addresses } from './address.js';
import { BulkBar, type Chosen } from './bulk.js';
import { useClients, useKnownDevice, useMayManage, useOrganisations, useServers } from './data.js';
import { LabelFilter } from './labels.js';
import { RowMenu } from './row-menu.js';
import { PlayersCell, StateCell } from './situation.js';
import { stateFilters } from './state-filters.js';
import { targetOf } from './state.js';
import { texts } from './texts.js';

type Query = NonNullable<Parameters<typeof client.allocations.list>[0]>;

const topics = ['allocation'];
const filterNames = ['state', 'protocol', 'deviceId', 'serverId', 'owner', 'label'] as const;

/** The query of the list that the page's address stands for. */
function queryOf(parameters: URLSearchParams): Query {
  const query: Query = {
    q: parameters.get('q')?.trim() || undefined,
    protocol: (parameters.get('protocol') ?? undefined) as Schemas['Protocol'] | undefined,
    deviceId: parameters.get('deviceId') ?? undefined,
    serverId: parameters.get('serverId') ?? undefined,
    ...ownerQuery(parameters),
    label: parameters.has('label') ? parameters.getAll('label') : undefined,
    sort: (parameters.get('sort') ?? undefined) as Query['sort'],
    ...stateFilters[parameters.get('state') as keyof typeof stateFilters],
  } as Query;
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as Query;
}

/** The list of ports. */
export function List(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const pages = usePages('allocations', client.allocations.list, queryOf(parameters), { topics });
  const [chosen, setChosen] = useState<Chosen>(new Map());
  const elsewhere = withOwner(parameters);
  if (elsewhere) return <Redirect to={`/allocations?${elsewhere}`} replace />;
  const filtered = ['q', ...filterNames].some((name) => parameters.has(name));
  const clear = (): void => setParameters({ q: undefined, page: undefined, ...Object.fromEntries(filterNames.map((name) => [name, undefined])) });

  return (
    <>
      <PageHead
        title={t.title}
        about={t.about}
        actions={
          <ButtonLink kind="primary" href="/allocations/new">
            {t.new}
          </ButtonLink>
        }
      />
      <Loaded query={pages} messages={{ feature_disabled: t.off }}>
        {({ items }) =>
          items.length === 0 && !filtered && pages.onFirst ? (
            <NoPorts />
          ) : (
            <div className="stack">
              <Filters />
              <LabelFilter />
              {items.length === 0 ? (
                <Empty title={t.nothingFound} action={filtered ? <Button onClick={clear}>{t.clear}</Button> : <Button onClick={pages.first}>{t.toFirst}</Button>}>
                  {filtered ? t.nothingFoundText : undefined}
                </Empty>
              ) : (
                <Rows items={items} chosen={chosen} onChoose={setChosen} />
              )}
              <Pager pages={pages} />
            </div>
          )
        }
      </Loaded>
    </>
  );
}

function NoPorts(): ReactNode {
  const t = useText(texts);
  const devices = useClients();
  return devices.data?.length === 0 ? (
    <Empty title={t.noDevice} action={<ButtonLink kind="primary" href="/start">{t.connectDevice}</ButtonLink>}>
      {t.noDeviceText}
    </Empty>
  ) : (
    <Empty title={t.none} action={<ButtonLink kind="primary" href="/allocations/new">{t.new}</ButtonLink>}>
      {t.noneText}
    </Empty>
  );
}

function Filters(): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const admin = useIsAdmin();
  const [parameters] = useQueryParameters();
  const [deviceId, serverId, owner] = ['deviceId', 'serverId', 'owner'].map((name) => parameters.get(name) ?? '');
  const device = useKnownDevice(deviceId ?? '');
  const devices = useClients().data ?? [];
  const servers = useServers().data ?? [];
  const organisations = useOrganisations().data ?? [];
  // A link may name what is not offered.
  const named = (all: readonly { value: string; text: string }[], chosen: string | undefined, text = chosen) =>
    !chosen || all.some(({ value }) => value === chosen) ? all : [...all, { value: chosen, text: text ?? '' }];
  const byName = (all: readonly { id: string; name: string }[]) => all.map(({ id, name }) => ({ value: id, text: name }));
  const owners = [{ value: `user-${user.id}`, text: t.mine }, ...organisations.map(({ id, name }) => ({ value: `organisation-${id}`, text: name }))];
  return (
    <div className="row allocations-filters">
      <SearchBox label={t.search} placeholder={t.searchHint} />
      <Filter name="state" label={t.anyState} options={(Object.keys(stateFilters) as (keyof typeof stateFilters)[]).map((value) => ({ value, text: t.states[value] }))} />
      <Filter name="protocol" label={t.anyProtocol} options={[{ value: 'tcp', text: 'TCP' }, { value: 'udp', text: 'UDP' }]} />
      {(devices.length > 1 || deviceId) && <Filter name="deviceId" label={t.anyDevice} options={named(byName(devices), deviceId, device?.name)} />}
      {(servers.length > 1 || serverId) && <Filter name="serverId" label={t.anyServer} options={named(byName(servers), serverId)} />}
      {(admin || organisations.length > 0 || owner) && <Filter name="owner" label={t.anyOwner} options={named(owners, owner, t.owner(owner ?? ''))} />}
    </div>
  );
}

function Rows({ items, chosen, onChoose }: { items: Allocation[]; chosen: Chosen; onChoose(chosen: Chosen): void }): ReactNode {
  const t = useText(texts);
  const mayManage = useMayManage();
  const devices = useClients().data;
  const admin = useIsAdmin();
  const byId = useMemo(() => new Map(devices?.map((device) => [device.id, device])), [devices]);
  const changeable = admin ? items : items.filter(({ deviceId }) => mayManage(byId.get(deviceId)));
  const may = new Set(changeable.map(({ id }) => id));
  const toggle = (allocation: Allocation): void => {
    const next = new Map(chosen);
    if (!next.delete(allocation.id)) next.set(allocation.id, allocation);
    onChoose(next);
  };

  const columns: readonly Column<Allocation>[] = [
    {
      title: t.name,
      sort: 'name',
      cell: (one) => (
        <div className="allocations-name">
          {may.has(one.id) && <input type="checkbox" aria-label={t.choose(one.name || one.publicAddress)} checked={chosen.has(one.id)} onChange={() => toggle(one)} />}
          <Link href={`/allocations/${one.id}`}>{one.name || t.unnamed}</Link>
        </div>
      ),
    },
    {
      title: t.address,
      sort: 'port',
      cell: (one) => (
        <div className="allocations-addresses">
          <Addresses allocation={one} numbers={one.protocol === 'udp' ? 'first' : 'none'} />
          <span className="small faint">{one.protocol.toUpperCase()}</span>
        </div>
      ),
    },
    { title: t.state, cell: (one) => <StateCell allocation={one} /> },
    { title: t.target, cell: (one) => <Target allocation={one} /> },
    { title: t.players, kind: 'number', cell: ({ id }) => <PlayersCell id={id} /> },
    { title: '', kind: 'actions', cell: (one) => may.has(one.id) && <RowMenu allocation={one} /> },
  ];
  return (
    <div className="stack tight allocations-rows">
      {changeable.length > 0 && <BulkBar page={changeable} chosen={chosen} onChoose={onChoose} />}
      <Table caption={t.title} columns={columns} items={items} keyOf={({ id }) => id} />
    </div>
  );
}

/** Where a port leads: device and local address. */
function Target({ allocation }: { allocation: Allocation }): ReactNode {
  const t = useText(texts);
  const device = useKnownDevice(allocation.deviceId);
  return (
    <div className="allocations-target">
      <Link href={`/devices/${allocation.deviceId}`}>{device?.name ?? t.device}</Link>
      <br />
      <code className="small faint">{targetOf(allocation)}</code>
    </div>
  );
}
