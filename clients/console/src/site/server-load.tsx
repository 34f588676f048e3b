import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import type { Server } from './servers.js';
import { texts } from './servers-texts.js';

export type Load = Schemas['TunnelServerLoad'];

/** What each tunnel server has and carries, by its ID. Undefined until it is read. */
export function useLoads(): ReadonlyMap<string, Load> | undefined {
  const { data } = useQuery({ queryKey: keys.serverLoads, queryFn: ({ signal }) => client.admin.tunnelServerLoads({ signal }), refetchInterval: 5000 });
  return data && new Map(data.map((load) => [load.deviceId, load]));
}

/** How many ports a tunnel server has, and of how many devices. */
export function PortsCell({ server, load }: { server: Server; load: Load | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const { first, last } = server.server.portRange;
  return (
    <div>
      {load ? <Link href={`/allocations?serverId=${server.id}`}>{format.number(load.allocations)}</Link> : <Unknown />}
      {load && load.clients > 0 && <div className="small faint">{t.ofDevices(format.number(load.clients))}</div>}
      {load && load.closing > 0 && <div className="small faint">{t.closing(format.number(load.closing))}</div>}
      <div className="small faint">{t.range(first, last)}</div>
    </div>
  );
}

/** How many players a tunnel server has, and what it carries between them and the games. */
export function PlayersCell({ server, load }: { server: Server; load: Load | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const { players } = server.server;
  return (
    <div>
      {players === null ? <Unknown /> : format.number(players)}
      {server.online && load && (
        <div className="small faint site-rates">
          <div>{t.toPlayers(format.bits(load.downloadBytesPerSecond * 8))}</div>
          <div>{t.fromPlayers(format.bits(load.uploadBytesPerSecond * 8))}</div>
        </div>
      )}
    </div>
  );
}

/** A dash for what is not known. */
function Unknown(): ReactNode {
  const t = useText(texts);
  return (
    <span className="faint">
      <span aria-hidden="true">–</span>
      <span className="unseen">{t.unknown}</span>
    </span>
  );
}

/** How far a drain is: how many ports have moved away or, if they stay, have no players any more. */
export function DrainProgress({ server, load }: { server: Server; load: Load | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow(10);
  const drain = load?.drain;
  if (!drain) return null;
  const { allocations, remaining, move, until } = drain;
  const done = (move ? t.progress : t.emptied)(format.number(allocations - remaining), format.number(allocations));
  const { state, players } = server.server;
  return (
    <div className="site-drain small">
      {allocations > 0 && (
        <>
          <span>{done}</span>
          <progress className="site-progress" value={allocations - remaining} max={allocations} aria-label={t.drainOf(server.name)} />
        </>
      )}
      {state === 'draining' && (
        <span className="faint" title={format.dateTime(until)}>
          {t.draining(players === null ? '?' : format.number(players), format.ago(until, now))}
        </span>
      )}
      {state === 'drained' && <span className="faint">{load.allocations > 0 ? t.drainedWith(format.number(load.allocations)) : t.drained}</span>}
    </div>
  );
}
