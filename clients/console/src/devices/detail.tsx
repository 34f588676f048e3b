import type { Device } from '@eclitunnel/sdk';
import { tunnelQueries, useLiveStatus } from '@eclitunnel/sdk/react';
import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState, type ReactNode } from 'react';
import { Link, Route, Switch } from 'wouter';
import { useMayManage } from '../allocations/data.js';
import { client } from '../lib/client.js';
import { useText } from '../lib/language.js';
import { Detailed } from '../shell/detailed.js';
import { NotFound } from '../shell/not-found.js';
import { Loading, PageHead, Tabs } from '../ui/index.js';
import { Acts } from './acts.js';
import { detailTexts } from './detail-texts.js';
import { Facts } from './facts.js';
import { Ports } from './ports.js';
import { ServerCard } from './server.js';
import { Situation } from './situation.js';
import { texts } from './texts.js';

const PlayersSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).PlayersSection }));
const UsageSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).UsageSection }));

/** A device: its tabs. */
export function Detail({ id }: { id: string }): ReactNode {
  const t = useText(texts);
  const own = useText(detailTexts);
  const { live } = useLiveStatus();
  // While it is being deleted it is not asked for: the answer would be that there is no such device.
  const [leaving, setLeaving] = useState(false);
  const query = useQuery({ ...tunnelQueries(client).device(id), enabled: !leaving, staleTime: live ? Infinity : 0, refetchInterval: live ? false : 15_000 });
  return (
    <Detailed query={query} list="/devices" texts={{ ...own, title: t.title, off: t.off }}>
      {(device) => <Page device={device} onLeaving={setLeaving} />}
    </Detailed>
  );
}

function Page({ device, onLeaving }: { device: Device; onLeaving(leaving: boolean): void }): ReactNode {
  const t = useText(texts);
  const own = useText(detailTexts);
  const may = useMayManage()(device);
  const at = `/devices/${device.id}`;
  // Players and bytes are those of the machines beside games; a tunnel server has those of others.
  const hasTraffic = device.kind === 'client' && device.approved;
  const tabs = [
    { href: at, text: own.overview },
    { href: `${at}/players`, text: own.players },
    { href: `${at}/traffic`, text: own.traffic },
  ];
  return (
    <>
      <PageHead title={device.name} crumbs={<Link href="/devices">{t.title}</Link>} actions={may === true && <Acts device={device} onLeaving={onLeaving} />} />
      {hasTraffic && <Tabs label={own.tabs} tabs={tabs} />}
      <Suspense fallback={<Loading />}>
        <Switch>
          <Route path={at}>
            <Overview device={device} may={may === true} />
          </Route>
          {hasTraffic && (
            <Route path={`${at}/players`}>
              <PlayersSection deviceId={device.id} />
            </Route>
          )}
          {hasTraffic && (
            <Route path={`${at}/traffic`}>
              <UsageSection deviceId={device.id} />
            </Route>
          )}
          <Route>
            <NotFound />
          </Route>
        </Switch>
      </Suspense>
    </>
  );
}

function Overview({ device, may }: { device: Device; may: boolean }): ReactNode {
  return (
    <div className="devices-sheets">
      <Situation device={device} />
      <Facts device={device} />
      {device.server && <ServerCard server={device.server} />}
      {device.approved && <Ports device={device} may={may} />}
    </div>
  );
}
