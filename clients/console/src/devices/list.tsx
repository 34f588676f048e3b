import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { Link, Redirect } from 'wouter';
import { useOrganisations } from '../allocations/data.js';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { ownerQuery, withOwner } from '../lib/owner-filter.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { useIsAdmin, usePermits, useUser } from '../session/session.js';
import { useNames, type Names } from '../traffic/names.js';
import { Button, ButtonLink, Empty, Filter, Loaded, PageHead, Pager, SearchBox, Table, type Column } from '../ui/index.js';
import { AgentVersion } from './agent.js';
import { usePortCounts } from './data.js';
import { LiveState } from './live-state.js';
import { lifeOf, platformName } from './state.js';
import { texts } from './texts.js';

type Query = NonNullable<Parameters<typeof client.devices.list>[0]>;

const topics = ['device'];
const filterNames = ['state', 'kind', 'owner'] as const;
const stateFilters = { online: { online: true, approved: true }, offline: { online: false, approved: true }, waiting: { approved: false } } as const;

/** The query of the list that the page's address stands for. */
function queryOf(parameters: URLSearchParams): Query {
  const query = {
    q: parameters.get('q')?.trim() || undefined,
    kind: parameters.get('kind') ?? undefined,
    ...ownerQuery(parameters),
    sort: parameters.get('sort') ?? undefined,
    ...stateFilters[parameters.get('state') as keyof typeof stateFilters],
  };
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as Query;
}

/** The list of devices. */
export function List(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const pages = usePages('devices', client.devices.list, queryOf(parameters), { topics });
  const elsewhere = withOwner(parameters);
  if (elsewhere) return <Redirect to={`/devices?${elsewhere}`} replace />;
  const filtered = ['q', ...filterNames].some((name) => parameters.has(name));
  const clear = (): void => setParameters({ q: undefined, page: undefined, ...Object.fromEntries(filterNames.map((name) => [name, undefined])) });
  const add = (
    <ButtonLink kind="primary" href="/start">
      {t.add}
    </ButtonLink>
  );

  return (
    <>
      <PageHead title={t.title} about={t.about} actions={add} />
      <Loaded query={pages} messages={{ feature_disabled: t.off }}>
        {({ items }) =>
          items.length === 0 && !filtered && pages.onFirst ? (
            <Empty title={t.none} action={add}>
              {t.noneText}
            </Empty>
          ) : (
            <div className="stack">
              <Filters />
              {items.length === 0 ? (
                <Empty title={t.nothingFound} action={filtered ? <Button onClick={clear}>{t.clear}</Button> : <Button onClick={pages.first}>{t.toFirst}</Button>}>
                  {filtered ? t.nothingFoundText : undefined}
                </Empty>
              ) : (
                <Rows items={items} />
              )}
              <Pager pages={pages} />
            </div>
          )
        }
      </Loaded>
    </>
  );
}

function Filters(): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const admin = useIsAdmin();
  const owner = useQueryParameters()[0].get('owner') ?? '';
  const organisations = useOrganisations().data ?? [];
  const { users, organisations: all } = useNames(owner ? 'owner' : 'device');
  const owners = [{ value: `user-${user.id}`, text: t.mine }, ...organisations.map(({ id, name }) => ({ value: `organisation-${id}`, text: name }))];
  if (owner && !owners.some(({ value }) => value === owner)) {
    // A link may name whom the filter does not offer.
    const [kind, id] = owner.split('-');
    owners.push({ value: owner, text: (kind === 'user' ? users : all)?.get(Number(id))?.name ?? t.ownerOf(id ?? '') });
  }
  return (
    <div className="row devices-filters">
      <SearchBox label={t.search} placeholder={t.searchHint} />
      <Filter name="state" label={t.anyState} options={(['online', 'offline', 'waiting'] as const).map((value) => ({ value, text: t.states[value] }))} />
      <Filter name="kind" label={t.anyKind} options={(['client', 'server'] as const).map((value) => ({ value, text: t.kinds[value] }))} />
      {(admin || organisations.length > 0 || owner) && <Filter name="owner" label={t.anyOwner} options={owners} />}
    </div>
  );
}

function Rows({ items }: { items: Device[] }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const user = useUser();
  const mayApprove = usePermits().approve;
  const now = useNow(5);
  const counts = usePortCounts();
  const names = useNames('owner');
  // To whom all devices belong need not be said.
  const owned = items.some(({ ownerId }) => ownerId !== user.id);
  const columns: readonly (Column<Device> | false)[] = [
    {
      title: t.name,
      sort: 'name',
      cell: (device) => (
        <div className="devices-name">
          <Link href={`/devices/${device.id}`}>{device.name}</Link>
          <span className="small faint">{[t.kinds[device.kind], device.platform && platformName(device.platform)].filter(Boolean).join(' · ')}</span>
        </div>
      ),
    },
    {
      title: t.state,
      sort: 'lastSeenAt',
      cell: (device) => (
        <div className="devices-situation">
          <LiveState device={device} />
          {mayApprove && lifeOf(device, now) === 'waiting' && <ApproveLink device={device} />}
        </div>
      ),
    },
    {
      title: t.added,
      sort: 'createdAt',
      cell: ({ createdAt }) => (
        <time className="nowrap" dateTime={createdAt} title={format.dateTime(createdAt)}>
          {format.date(createdAt)}
        </time>
      ),
    },
    {
      title: t.version,
      cell: (device) => (
        <div className="devices-agent">
          <AgentVersion device={device} short />
        </div>
      ),
    },
    owned && { title: t.owner, cell: (device) => <OwnerCell device={device} users={names.users} organisations={names.organisations} /> },
    { title: t.ports, kind: 'number', cell: (device) => <PortsCell device={device} counts={counts} /> },
  ];
  return (
    <div className="devices-rows">
      <Table caption={t.title} columns={columns.filter((column) => column !== false)} items={items} keyOf={({ id }) => id} />
    </div>
  );
}

function OwnerCell({ device: { ownerId, organisationId, kind, approved }, users, organisations }: { device: Device; users: Names; organisations: Names }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  if (ownerId === user.id) return <span>{t.me}</span>;
  if (ownerId !== null) return <span className="devices-owner">{users?.get(ownerId)?.name ?? t.user(ownerId)}</span>;
  if (organisationId !== null) return <Link href={`/organisations/${organisationId}`}>{organisations?.get(organisationId)?.name ?? t.organisation(organisationId)}</Link>;
  return <span className="faint">{kind === 'server' && approved ? '–' : t.nobodyYet}</span>;
}

/** How many ports a device has, as a link to them. */
function PortsCell({ device: { id, name, kind, approved }, counts }: { device: Device; counts: ReadonlyMap<string, number> | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  if (!approved) return <span className="faint">–</span>;
  const count = counts && (counts.get(id) ?? 0);
  if (count === 0) return format.number(0);
  return (
    <Link href={`/allocations?${kind === 'server' ? 'serverId' : 'deviceId'}=${id}`} aria-label={count === undefined ? t.portsOf(name) : `${t.portsOf(name)}: ${format.number(count)}`}>
      {count === undefined ? t.show : format.number(count)}
    </Link>
  );
}

function ApproveLink({ device }: { device: Device }): ReactNode {
  const t = useText(texts);
  if (!device.userCode) return null;
  return (
    <Link className="button compact primary" href={`/device?${new URLSearchParams({ code: device.userCode })}`} aria-label={t.approveNamed(device.name)}>
      {t.approve}
    </Link>
  );
}
