import { useQuota, useUsage } from '@eclitunnel/sdk/react';
import { isCode, type Allocation, type Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePermits, useUser } from '../session/session.js';
import { ButtonLink, Empty, Loaded, PageHead } from '../ui/index.js';
import { attention } from './attention.js';
import { FeatureOff } from './feature-off.js';
import { Matters } from './matters.js';
import { useOverviewDevices, useOverviewPlayers, useOverviewPorts, type Some } from './overview-data.js';
import './overview.css';
import { texts } from './overview-texts.js';

/** The first page: what needs attention, how much is going on, and what comes next. */
export default function Overview(): ReactNode {
  const t = useText(texts);
  const devices = useOverviewDevices();
  const ports = useOverviewPorts();
  const off = isCode(devices.error, 'feature_disabled') || isCode(ports.error, 'feature_disabled');
  return (
    <>
      <PageHead title={t.title} />
      {off ? (
        <FeatureOff />
      ) : (
        <Loaded query={devices}>
          {(devices) =>
            devices.items.some(({ kind, approved }) => kind === 'client' && approved) ? (
              <Loaded query={ports}>{(ports) => <Filled devices={devices} ports={ports} />}</Loaded>
            ) : (
              <Nothing devices={devices.items} />
            )
          }
        </Loaded>
      )}
    </>
  );
}

/** Stands where nobody has set anything up, and leads on. */
function Nothing({ devices }: { devices: readonly Device[] }): ReactNode {
  const t = useText(texts);
  const { approve } = usePermits();
  return (
    <>
      <Empty
        title={t.empty}
        action={
          <ButtonLink kind="primary" href="/start">
            {t.begin}
          </ButtonLink>
        }
      >
        {t.emptyText}
        {!approve && ` ${t.askAdmin}`}
      </Empty>
      <Attention devices={devices} ports={[]} quiet />
    </>
  );
}

function Filled({ devices, ports }: { devices: Some<Device>; ports: Some<Allocation> }): ReactNode {
  const t = useText(texts);
  const { approve } = usePermits();
  const clients = devices.items.filter(({ kind, approved }) => kind === 'client' && approved);
  const withPort = new Set(ports.items.map(({ deviceId }) => deviceId));
  const idle = ports.more ? undefined : clients.find(({ id, online }) => online && !withPort.has(id));
  return (
    <>
      <Attention devices={devices.items} ports={ports.items} />
      <Totals devices={{ items: clients, more: devices.more }} ports={ports} />
      {(devices.more || ports.more) && <p className="small faint">{t.newest}</p>}
      <section className="stack" aria-labelledby="overview-next">
        <h2 id="overview-next">{t.next}</h2>
        <div className="row">
          {idle && (
            <ButtonLink kind="primary" href={`/start?${new URLSearchParams({ device: idle.id })}`}>
              {t.firstPort(idle.name)}
            </ButtonLink>
          )}
          <ButtonLink href="/allocations/new">{t.port}</ButtonLink>
          <ButtonLink href="/start">{t.machine}</ButtonLink>
          {approve && <ButtonLink href="/device">{t.approve}</ButtonLink>}
        </div>
      </section>
    </>
  );
}

/** What needs attention; where nothing does it says so, unless it is to be `quiet`. */
function Attention({ devices, ports, quiet = false }: { devices: readonly Device[]; ports: readonly Allocation[]; quiet?: boolean }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const quota = useQuota().data;
  const matters = attention({ devices, ports, quota, userId: user.id, now: useNow(10) });
  if (quiet && matters.length === 0) return null;
  return (
    <section className="sheet stack" aria-labelledby="overview-attention">
      <h2 id="overview-attention">{t.attention}</h2>
      {matters.length > 0 ? <Matters matters={matters} /> : <p className="good">{t.nothing}</p>}
    </section>
  );
}

/** The start of today where the person is, for the panel. */
function today(now: number): string {
  return new Date(new Date(now).setHours(0, 0, 0, 0)).toISOString();
}

function Totals({ devices, ports }: { devices: Some<Device>; ports: Some<Allocation> }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const players = useOverviewPlayers().data;
  const usage = useUsage({ from: today(useNow(60)) }).data;
  const count = (items: readonly unknown[], more: boolean): string => (more ? t.plus(format.number(items.length)) : format.number(items.length));
  const bytes = usage?.series.reduce((sum, { totals }) => sum + totals.downloadBytes + totals.uploadBytes, 0);
  const online = devices.items.filter(({ online }) => online);
  const open = ports.items.filter(({ status }) => status === 'listening');
  const totals = [
    { title: t.devices, value: t.of(format.number(online.length), count(devices.items, devices.more)), href: '/devices' },
    { title: t.ports, value: t.of(format.number(open.length), count(ports.items, ports.more)), href: '/allocations' },
    { title: t.players, value: players ? count(players.items, players.more) : '–', href: '/traffic' },
    { title: t.traffic, value: bytes === undefined ? '–' : format.bytes(bytes), href: '/traffic' },
  ];
  return (
    <section className="stack" aria-labelledby="overview-totals">
      <h2 id="overview-totals">{t.totals}</h2>
      <ul className="overview-totals">
        {totals.map(({ title, value, href }) => (
          <li key={title}>
            <Link href={href}>
              <span className="small faint">{title}</span>
              <span className="overview-value">{value}</span>
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}
