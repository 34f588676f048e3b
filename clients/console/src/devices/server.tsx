import type { Schemas } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { useHostWarning } from '../lib/host-warning.js';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { ButtonLink, Copyable, Note, State, type Tone } from '../ui/index.js';
import { detailTexts } from './detail-texts.js';

const tones: Readonly<Record<Schemas['TunnelServerState'], Tone>> = { active: 'good', cordoned: 'warn', draining: 'warn', drained: '' };

/** The settings of a tunnel server, and what it takes. */
export function ServerCard({ server }: { server: NonNullable<Schemas['TunnelServer']> }): ReactNode {
  const t = useText(detailTexts);
  const hostWarning = useHostWarning();
  const format = useFormat();
  const admin = useIsAdmin();
  const { publicHost, publicHostGuessed, publicHostWarning, publicAddresses, portRange, region, relayPort, state, players, drainUntil } = server;
  const addresses = publicAddresses.filter((address) => address !== publicHost);
  return (
    <section className="sheet stack" aria-labelledby="devices-server">
      <h2 id="devices-server">{t.server}</h2>
      <p>
        <State tone={tones[state]}>{t.serverStates[state]}</State>
      </p>
      {drainUntil && <p>{t.drainUntil(format.dateTime(drainUntil))}</p>}
      {publicHostWarning && <Note tone="warn">{hostWarning(publicHostWarning)}</Note>}
      <dl className="facts">
        <dt>{t.publicHost}</dt>
        <dd>
          <Copyable text={publicHost} label={t.publicHost} />
          {publicHostGuessed && <span className="small faint"> {t.hostGuessed}</span>}
        </dd>
        {addresses.length > 0 && (
          <>
            <dt>{t.publicAddresses}</dt>
            <dd>
              <code>{addresses.join(', ')}</code>
            </dd>
          </>
        )}
        <dt>{t.portRange}</dt>
        <dd>
          {portRange.first}–{portRange.last}
        </dd>
        {relayPort > 0 && (
          <>
            <dt>{t.relayPort}</dt>
            <dd>{relayPort}</dd>
          </>
        )}
        <dt>{t.region}</dt>
        <dd>{region || <span className="faint">{t.noRegion}</span>}</dd>
        {players !== null && (
          <>
            <dt>{t.playersNow}</dt>
            <dd>{format.number(players)}</dd>
          </>
        )}
      </dl>
      {admin && (
        <p>
          <ButtonLink compact href="/site/servers">
            {t.toServers}
          </ButtonLink>
        </p>
      )}
    </section>
  );
}
