import { useState, type ReactNode } from 'react';
import type { Connection } from '@eclitunnel/sdk';
import { useAllocation, useAllocations, useConnections } from '@eclitunnel/sdk/react';
import { Link } from 'wouter';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Button, Loaded, Note, Table, type Column } from '../ui/index.js';
import { CutOff } from './cut-off.js';
import { texts } from './players-texts.js';
import { connectionQuery, useManages } from './scope.js';
import type { Scope } from './usage.js';
import './traffic.css';

/** How many players are shown at first, and more of at a time. */
const pageSize = 100;
/** From how many players on a search helps. */
const searchFrom = 12;

function Since({ at }: { at: string }): ReactNode {
  const format = useFormat();
  const now = useNow(10);
  return (
    <time dateTime={at} title={format.dateTime(at)}>
      {format.span(Math.max(0, Math.floor((now - Date.parse(at)) / 60_000) * 60))}
    </time>
  );
}

interface ListProps {
  connections: readonly Connection[];
  manages: boolean | undefined;
  /** The names of ports, if the list is of several. */
  ports?: ReadonlyMap<number, string> | undefined;
  leaving: ReadonlySet<string>;
  onCutOff(connection: Connection): void;
}

function PlayerTable({ connections, manages, ports, leaving, onCutOff }: ListProps): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const trip = (milliseconds: number | null): ReactNode => (milliseconds === null ? <span className="faint" title={t.unknown}>–</span> : format.milliseconds(milliseconds));
  const columns: Column<Connection>[] = [
    {
      title: t.player,
      cell: ({ sourceAddress, sourcePort, allocationId }) => (
        <div className="traffic-player">
          <code className="traffic-address" title={`${sourceAddress}:${sourcePort}`}>
            {sourceAddress}
          </code>
          {ports && (
            <div className="small">
              <Link href={`/allocations/${allocationId}`}>{ports.get(allocationId) ?? `${t.port} ${allocationId}`}</Link>
            </div>
          )}
        </div>
      ),
    },
    { title: t.since, cell: ({ since }) => <Since at={since} />, kind: 'number' },
    { title: t.protocol, cell: ({ protocol }) => protocol.toUpperCase() },
    { title: t.toPlayer, cell: ({ downloadBytes }) => format.bytes(downloadBytes), kind: 'number' },
    { title: t.fromPlayer, cell: ({ uploadBytes }) => format.bytes(uploadBytes), kind: 'number' },
    { title: t.playerTrip, cell: ({ playerRoundTripMs }) => trip(playerRoundTripMs), kind: 'number' },
    { title: t.tunnelTrip, cell: ({ tunnelRoundTripMs }) => trip(tunnelRoundTripMs), kind: 'number' },
  ];
  if (manages) {
    columns.push({
      title: '',
      kind: 'actions',
      cell: (connection) => (
        <Button compact kind="danger" busy={leaving.has(connection.id)} aria-label={t.cutOffWhom(connection.sourceAddress)} onClick={() => onCutOff(connection)}>
          {leaving.has(connection.id) ? t.leaving : t.cutOff}
        </Button>
      ),
    });
  }
  return <Table caption={t.players} columns={columns} items={connections} keyOf={({ id }) => id} />;
}

function List({ connections, manages, ports }: Pick<ListProps, 'connections' | 'manages' | 'ports'>): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const [wanted, setWanted] = useState('');
  const [shown, setShown] = useState(pageSize);
  const [cutting, setCutting] = useState<Connection>();
  const [leaving, setLeaving] = useState<ReadonlySet<string>>(new Set());
  const found = wanted === '' ? connections : connections.filter(({ sourceAddress }) => sourceAddress.includes(wanted));
  const some = found.slice(0, shown);
  const searched = wanted !== '' || connections.length >= searchFrom;
  return (
    <div className="stack tight">
      {searched && (
        <div className="row apart">
          <label className="grow traffic-find">
            <span className="unseen">{t.find}</span>
            <input className="input" type="search" placeholder={t.find} maxLength={64} value={wanted} onChange={(event) => setWanted(event.target.value.trim())} />
          </label>
          <p className="small faint traffic-count" role="status">
            {t.count(format.number(some.length), format.number(connections.length))}
          </p>
        </div>
      )}
      {found.length === 0 ? (
        <Note>
          <p>{wanted === '' ? t.noneText : t.noneFound}</p>
          {wanted !== '' && (
            <p>
              <Button compact onClick={() => setWanted('')}>
                {t.clear}
              </Button>
            </p>
          )}
        </Note>
      ) : (
        <PlayerTable connections={some} manages={manages} ports={ports} leaving={leaving} onCutOff={setCutting} />
      )}
      {found.length > shown && (
        <p className="row end">
          <Button compact onClick={() => setShown(shown + pageSize)}>
            {t.more(Math.min(pageSize, found.length - shown))}
          </Button>
        </p>
      )}
      <p className="small faint">{t.tripsHint}</p>
      {cutting && <CutOff connection={cutting} onCut={({ id }) => setLeaving((old) => new Set([...old, id]))} onClose={() => setCutting(undefined)} />}
    </div>
  );
}

/** The players of a port or a device who are connected now. */
export function Players({ scope }: { scope: Exclude<Scope, { organisationId: number }> }): ReactNode {
  const t = useText(texts);
  const connections = useConnections(connectionQuery(scope));
  return (
    <Loaded query={connections}>
      {(list) =>
        list.length === 0 ? (
          <Note>
            <p>
              <strong>{t.none}</strong>
            </p>
            <p>{t.noneText}</p>
          </Note>
        ) : 'allocationId' in scope ? (
          <OfPort allocationId={scope.allocationId} connections={list} />
        ) : (
          <OfDevice deviceId={scope.deviceId ?? ''} connections={list} />
        )
      }
    </Loaded>
  );
}

function Rights({ manages }: { manages: boolean | undefined }): ReactNode {
  const t = useText(texts);
  return manages === false && <p className="small faint">{t.mayNot}</p>;
}

function OfPort({ allocationId, connections }: { allocationId: number; connections: readonly Connection[] }): ReactNode {
  const manages = useManages(useAllocation(allocationId).data?.deviceId);
  return (
    <>
      <List connections={connections} manages={manages} />
      <Rights manages={manages} />
    </>
  );
}

function OfDevice({ deviceId, connections }: { deviceId: string; connections: readonly Connection[] }): ReactNode {
  const manages = useManages(deviceId);
  const allocations = useAllocations({ deviceId }).data;
  const ports = new Map(allocations?.map(({ id, name, publicAddress }) => [id, name || publicAddress]));
  return (
    <>
      <List connections={connections} manages={manages} ports={ports} />
      <Rights manages={manages} />
    </>
  );
}
