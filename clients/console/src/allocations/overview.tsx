import { useQuery } from '@tanstack/react-query';
import type { AllocationDetail, Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Copyable, State } from '../ui/index.js';
import { numericAddresses } from './address.js';
import { Check } from './check.js';
import { useServers, usePlayers } from './data.js';
import { linesOf } from './label-lines.js';
import { LabelLinks } from './labels.js';
import { targetOf, useSituation } from './state.js';
import { texts } from './texts.js';

/** How many players, and datagrams of players, a port has refused. */
function refusedBy({ playersRefused, datagramsDropped }: AllocationDetail): number {
  return [...Object.values(playersRefused), ...Object.values(datagramsDropped)].reduce((total, count) => total + count, 0);
}

/** How a port is, what players enter, and where it leads. */
export function Overview({ allocation, device, may }: { allocation: AllocationDetail; device: Device | undefined; may: boolean | undefined }): ReactNode {
  const t = useText(texts);
  return (
    <div className="allocations-sheets">
      <section className="sheet stack" aria-labelledby="allocations-situation">
        <h2 id="allocations-situation">{t.situation}</h2>
        <Situation allocation={allocation} />
      </section>
      {may === true && <Check allocation={allocation} />}
      <section className="sheet stack" aria-labelledby="allocations-address">
        <h2 id="allocations-address">{t.forPlayers}</h2>
        <ForPlayers allocation={allocation} />
      </section>
      <section className="sheet stack" aria-labelledby="allocations-way">
        <h2 id="allocations-way">{t.way}</h2>
        <Way allocation={allocation} device={device} />
      </section>
    </div>
  );
}

function Situation({ allocation }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const { tone, word, text, detail } = useSituation()(allocation);
  const told = usePlayers(allocation.id);
  const refused = refusedBy(allocation);
  return (
    <>
      <p className="allocations-word" role="status">
        <State tone={tone}>{word}</State>
      </p>
      <p>{text}</p>
      {detail && (
        <p className="small faint">
          {t.reported} <code>{detail}</code>
        </p>
      )}
      <dl className="facts">
        <dt>{t.playersNow}</dt>
        <dd>{format.number(told ?? allocation.players)}</dd>
        {refused > 0 && (
          <>
            <dt>{t.refusedShort}</dt>
            <dd>
              <Link href={`/allocations/${allocation.id}/rules`}>{t.refusedCount(format.number(refused))}</Link>
            </dd>
          </>
        )}
      </dl>
    </>
  );
}

function ForPlayers({ allocation }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(texts);
  const numbers = numericAddresses(allocation);
  return (
    <>
      <dl className="facts">
        <dt>{t.address}</dt>
        <dd>
          <Copyable text={allocation.publicAddress} label={t.addressOf(allocation.publicAddress)} />
        </dd>
        {numbers.length > 0 && (
          <>
            <dt>{t.byNumber}</dt>
            <dd className="allocations-addresses">
              {numbers.map((address) => (
                <Copyable key={address} text={address} label={t.addressOf(address)} />
              ))}
            </dd>
          </>
        )}
        <dt>{t.portAlone}</dt>
        <dd>
          <Copyable text={String(allocation.port)} label={t.portCopied} />
        </dd>
        <dt>{t.protocol}</dt>
        <dd>
          {allocation.protocol.toUpperCase()}
          <Twin allocation={allocation} />
        </dd>
      </dl>
      <p className="small faint">{t.twoFields}</p>
    </>
  );
}

/** Links the allocation of the other protocol on the same port, if there is one. */
function Twin({ allocation: { id, deviceId, serverId, port } }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(texts);
  const twins = useQuery({
    queryKey: keys.twins(deviceId, serverId, port),
    queryFn: ({ signal }) => client.allocations.list({ deviceId, serverId, port }, { signal }),
    staleTime: 60_000,
  });
  const twin = twins.data?.find((other) => other.id !== id);
  return (
    twin && (
      <>
        {' '}
        (<Link href={`/allocations/${twin.id}`}>{t.twin(twin.protocol.toUpperCase())}</Link>)
      </>
    )
  );
}

function Way({ allocation, device }: { allocation: AllocationDetail; device: Device | undefined }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const server = useServers().data?.find(({ id }) => id === allocation.serverId);
  return (
    <dl className="facts">
      <dt>{t.server}</dt>
      <dd>{server ? <Link href={`/devices/${server.id}`}>{server.name}</Link> : allocation.publicHost}</dd>
      <dt>{t.device}</dt>
      <dd>
        <Link href={`/devices/${allocation.deviceId}`}>{device?.name ?? t.device}</Link>
      </dd>
      <dt>{t.target}</dt>
      <dd>
        <code>{targetOf(allocation)}</code>
      </dd>
      <dt>{t.created}</dt>
      <dd>
        <time dateTime={allocation.createdAt}>{format.dateTime(allocation.createdAt)}</time>
      </dd>
      {allocation.runId && (
        <>
          <dt>{t.run}</dt>
          <dd>{t.runText}</dd>
        </>
      )}
      {linesOf(allocation.labels).length > 0 && (
        <>
          <dt>{t.labels}</dt>
          <dd>
            <LabelLinks labels={allocation.labels} />
          </dd>
        </>
      )}
    </dl>
  );
}
