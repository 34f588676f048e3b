import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { Link, useLocation } from 'wouter';
import type { Device, Schemas } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useExplain } from '../lib/errors.js';
import { useFormat } from '../lib/format.js';
import { useHostWarning } from '../lib/host-warning.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { usePanelVersion } from '../lib/panel.js';
import { Button, Copyable, Empty, Loaded, Menu, MenuItem, MenuLine, PageHead, State, Table, useNotices } from '../ui/index.js';
import { ServerDialog, type ServerAct } from './server-dialogs.js';
import { DrainProgress, PlayersCell, PortsCell, useLoads, type Load } from './server-load.js';
import { texts } from './servers-texts.js';

/** A device that is an approved tunnel server. */
export type Server = Device & { server: NonNullable<Schemas['TunnelServer']> };

const isServer = (device: Device): device is Server => device.server !== null;

export default function ServersPage(): ReactNode {
  const t = useText(texts);
  const [act, setAct] = useState<ServerAct>();
  const panel = usePanelVersion();
  const loads = useLoads();
  // Events tell of changes of a device, not of each player.
  const query = useQuery({ ...tunnelQueries(client).devices({ kind: 'server' }), refetchInterval: 10_000 });
  const add = (
    <Button kind="primary" onClick={() => setAct({ kind: 'enroll' })}>
      {t.create}
    </Button>
  );
  return (
    <>
      <PageHead title={t.title} about={t.about} actions={add} />
      <Loaded query={query}>
        {(devices) => {
          const servers = devices.filter(isServer);
          return (
            <>
              {servers.length === 0 ? (
                <Empty title={t.none}>{t.noneText}</Empty>
              ) : (
                <Table
                  caption={t.title}
                  items={servers}
                  keyOf={({ id }) => id}
                  columns={[
                    { title: t.name, cell: (server) => <Name server={server} panel={panel.data?.version ?? ''} /> },
                    { title: t.state, cell: (server) => <ServerState server={server} load={loads?.get(server.id)} /> },
                    { title: t.address, cell: (server) => <Address server={server} /> },
                    { title: t.ports, kind: 'number', cell: (server) => <PortsCell server={server} load={loads?.get(server.id)} /> },
                    { title: t.players, kind: 'number', cell: (server) => <PlayersCell server={server} load={loads?.get(server.id)} /> },
                    { title: '', kind: 'actions', cell: (server) => <Acts server={server} onAct={setAct} /> },
                  ]}
                />
              )}
              <ServerDialog act={act} servers={servers} waiting={devices.filter(({ approved }) => !approved)} onClose={() => setAct(undefined)} />
            </>
          );
        }}
      </Loaded>
    </>
  );
}

function Name({ server, panel }: { server: Server; panel: string }): ReactNode {
  const t = useText(texts);
  return (
    <div className="site-name site-server-state">
      <Link href={`/devices/${server.id}`}>{server.name}</Link>
      {server.server.region && <span className="small faint">{server.server.region}</span>}
      {server.agentVersion && <span className="small faint">{t.version(server.agentVersion)}</span>}
      {server.agentOutdated && <State tone="warn">{t.behind(panel)}</State>}
    </div>
  );
}

const tones = { active: 'good', cordoned: 'warn', draining: 'warn', drained: 'warn' } as const;

function ServerState({ server, load }: { server: Server; load: Load | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow(10);
  const { state } = server.server;
  return (
    <div className="site-server-state site-state">
      {server.online ? <State tone={tones[state]}>{t.states[state]}</State> : <State tone="bad">{t.offline}</State>}
      {!server.online && <span className="small faint">{server.lastSeenAt ? t.since(format.ago(server.lastSeenAt, now)) : t.never}</span>}
      {!server.online && state !== 'active' && <span className="small faint">{t.states[state]}</span>}
      <DrainProgress server={server} load={load} />
    </div>
  );
}

function Address({ server }: { server: Server }): ReactNode {
  const t = useText(texts);
  const hostWarning = useHostWarning();
  const { publicHost, publicHostGuessed, publicHostWarning } = server.server;
  return (
    <div className="site-server-state site-address">
      <Copyable text={publicHost} label={t.theAddress} />
      {publicHostGuessed && <span className="small faint">{t.guessed}</span>}
      {publicHostWarning && <span className="small warn">{hostWarning(publicHostWarning)}</span>}
    </div>
  );
}

function Acts({ server, onAct }: { server: Server; onAct(act: ServerAct): void }): ReactNode {
  const t = useText(texts);
  const [, navigate] = useLocation();
  const queries = useQueryClient();
  const explain = useExplain();
  const { notify } = useNotices();
  const { state } = server.server;

  async function cordon(cordoned: boolean): Promise<void> {
    await client.devices.update(server.id, { server: { cordoned } });
    await queries.invalidateQueries({ queryKey: keys.devices });
  }
  const act = (cordoned: boolean) =>
    void cordon(cordoned).then(
      // What drained cannot be taken up again by an undo with the time that was left.
      () => notify(cordoned ? t.cordoned(server.name) : t.uncordoned(server.name), state === 'active' || state === 'cordoned' ? () => cordon(!cordoned) : undefined),
      (error: unknown) => notify(explain(error).message),
    );

  return (
    <Menu label={server.name}>
      {state === 'active' && <MenuItem onSelect={() => act(true)}>{t.cordon}</MenuItem>}
      {state !== 'active' && <MenuItem onSelect={() => act(false)}>{state === 'cordoned' ? t.uncordon : t.cancelDrain}</MenuItem>}
      <MenuItem onSelect={() => onAct({ kind: 'drain', of: server })}>{state === 'draining' ? t.again : t.drain}</MenuItem>
      <MenuItem onSelect={() => onAct({ kind: 'move', of: server })}>{t.move}</MenuItem>
      <MenuLine />
      <MenuItem onSelect={() => onAct({ kind: 'edit', of: server })}>{t.edit}</MenuItem>
      <MenuItem onSelect={() => navigate(`/devices/${server.id}`)}>{t.open}</MenuItem>
    </Menu>
  );
}
