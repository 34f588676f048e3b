import { useAllocations, useConnections, useTunnelEvents, useUsage } from '@eclitunnel/sdk/react';
import type { TunnelEvent } from '@eclitunnel/sdk';
import { Suspense, useCallback, useMemo, useState, type ComponentProps, type ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { ButtonLink, Loaded, Loading, Note, State } from '../ui/index.js';
import { PortOpened } from './parts.js';
import { texts } from './texts.js';

interface PlayProps {
  deviceId: string;
  /** The game's preset, as the form of new ports calls it. */
  game: ComponentProps<typeof PortOpened>['opened']['preset'];
  /** The IDs of what was allocated. */
  ports: readonly number[];
}

/** How many bytes players have moved through the ports, and whether any player was there. */
function usePlayed(deviceId: string, ports: readonly number[]): { played: boolean; bytes: number } {
  // From yesterday on is enough for a port that was just opened.
  const from = useMemo(() => new Date(Date.now() - 86_400_000).toISOString(), []);
  const usage = useUsage({ deviceId, by: 'allocation', from });
  const connections = useConnections({ deviceId });
  const [live, setLive] = useState({ joined: false, bytes: 0 });
  useTunnelEvents(
    useCallback(
      (event: TunnelEvent) => {
        if (event.type === 'connection.opened' && ports.includes(event.connection.allocationId)) setLive((old) => ({ ...old, joined: true }));
        if (event.type !== 'usage') return;
        const mine = event.usage.filter(({ allocationId }) => ports.includes(allocationId));
        const bytes = mine.reduce((sum, { downloadBytes, uploadBytes }) => sum + downloadBytes + uploadBytes, 0);
        if (mine.length > 0) setLive((old) => ({ joined: old.joined || mine.some(({ players }) => players > 0), bytes: old.bytes + bytes }));
      },
      [ports],
    ),
  );
  const totals = (usage.data?.series ?? []).filter(({ allocationId }) => allocationId !== null && ports.includes(allocationId)).map(({ totals }) => totals);
  const players = (connections.data ?? []).filter(({ allocationId }) => ports.includes(allocationId));
  const sum = (counts: readonly { downloadBytes: number; uploadBytes: number }[]): number => counts.reduce((all, { downloadBytes, uploadBytes }) => all + downloadBytes + uploadBytes, 0);
  const bytes = Math.max(sum(totals), sum(players), live.bytes);
  return { bytes, played: bytes > 0 || live.joined || players.length > 0 || totals.some(({ joins }) => joins > 0) };
}

/** Shows the address of a new port, and says when the first player has come. */
export function PlayStep({ deviceId, game, ports }: PlayProps): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const allocations = useAllocations({ deviceId });
  const { played, bytes } = usePlayed(deviceId, ports);
  return (
    <Loaded query={allocations}>
      {(all) => {
        const opened = all.filter(({ id }) => ports.includes(id)).sort((a, b) => a.id - b.id);
        if (opened.length === 0) return <Note tone="warn">{t.gone}</Note>;
        return (
          <>
            <Suspense fallback={<Loading />}>
              <PortOpened opened={{ preset: game, allocations: opened }} />
            </Suspense>
            <div role="status">
              {played ? (
                <Note tone="good">
                  <p>
                    <strong>{t.arrived}</strong>
                  </p>
                  <p>{bytes > 0 ? t.arrivedText(format.bytes(bytes)) : t.arrivedSoon}</p>
                </Note>
              ) : (
                <div className="stack tight">
                  <p>
                    <State>{t.first}</State>
                  </p>
                  <p className="small faint">{t.firstText}</p>
                </div>
              )}
            </div>
            <div className="row">
              {played && (
                <ButtonLink kind="primary" href="/traffic">
                  {t.toTraffic}
                </ButtonLink>
              )}
              <ButtonLink href={`/allocations/${opened[0]?.id}`}>{t.toPort}</ButtonLink>
            </div>
          </>
        );
      }}
    </Loaded>
  );
}
