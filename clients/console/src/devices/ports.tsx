import { useQuery } from '@tanstack/react-query';
import type { Allocation, Device, TunnelEvent } from '@eclitunnel/sdk';
import { useLiveStatus, useTunnelEvents } from '@eclitunnel/sdk/react';
import { useCallback, type ReactNode } from 'react';
import { Link } from 'wouter';
import { useSituation } from '../allocations/state.js';
import { client, queryClient } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { ButtonLink, Loaded, State } from '../ui/index.js';
import { detailTexts } from './detail-texts.js';

/** How many ports the page of a device shows. */
const shown = 8;

/** The ports of a machine, or on a tunnel server: the newest, and where the others are. */
export function Ports({ device: { id, kind }, may }: { device: Device; may: boolean }): ReactNode {
  const t = useText(detailTexts);
  const by = kind === 'server' ? { serverId: id } : { deviceId: id };
  const queryKey = keys.newestPorts(by);
  const ports = useQuery({
    queryKey,
    queryFn: ({ signal }) => client.allocations.list({ ...by, limit: shown + 1 }, { signal }),
    refetchInterval: useLiveStatus().live ? false : 15_000,
  });
  useTunnelEvents(
    useCallback(
      (event: TunnelEvent) => {
        if (event.type === 'resync' || event.type.startsWith('allocation.')) void queryClient.invalidateQueries({ queryKey }, { cancelRefetch: false });
      },
      // The key stands for these.
      [id, kind],
    ),
  );
  return (
    <section className="sheet stack" aria-labelledby="devices-ports">
      <div className="row apart">
        <h2 id="devices-ports">{kind === 'server' ? t.serverPorts : t.ports}</h2>
        {may && kind === 'client' && (
          <ButtonLink compact href={`/allocations/new?deviceId=${id}`}>
            {t.open}
          </ButtonLink>
        )}
      </div>
      <Loaded query={ports}>
        {(all) =>
          all.length === 0 ? (
            <p className="faint">{kind === 'server' ? t.noServerPorts : t.noPorts}</p>
          ) : (
            <>
              <ul className="devices-list">
                {all.slice(0, shown).map((port) => (
                  <Port key={port.id} port={port} />
                ))}
              </ul>
              <p>
                <Link href={`/allocations?${new URLSearchParams(by as Record<string, string>)}`}>{kind === 'server' ? t.allServerPorts : t.allPorts}</Link>
              </p>
            </>
          )
        }
      </Loaded>
    </section>
  );
}

function Port({ port }: { port: Allocation }): ReactNode {
  const t = useText(detailTexts);
  const { tone, word } = useSituation()(port);
  return (
    <li>
      <div>
        <Link href={`/allocations/${port.id}`}>{port.name || t.unnamed}</Link>
        <br />
        <code className="small faint">{port.publicAddress}</code> <span className="small faint">{port.protocol.toUpperCase()}</span>
      </div>
      <State tone={tone}>{word}</State>
    </li>
  );
}
