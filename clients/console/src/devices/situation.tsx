import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePermits } from '../session/session.js';
import { ButtonLink, Copyable, State } from '../ui/index.js';
import { detailTexts } from './detail-texts.js';
import { spanOf, useReason } from './live-state.js';
import { stateTexts } from './state-texts.js';
import { lifeOf, tones, type Life } from './state.js';

/** How a device is now, since when, and what to do if it is not there. */
export function Situation({ device }: { device: Device }): ReactNode {
  const t = useText(detailTexts);
  const words = useText(stateTexts);
  const format = useFormat();
  const now = useNow(5);
  const reasonOf = useReason();
  const life = lifeOf(device, now);
  const advice = useAdvice();
  const { address, online, connectedSince, lastSeenAt, disconnectReason } = device;
  return (
    <section className="sheet stack" aria-labelledby="devices-situation">
      <h2 id="devices-situation">{t.situation}</h2>
      <p className="devices-word" role="status">
        <State tone={tones[life]}>{words[life]}</State>
      </p>
      <p>{advice(device, life)}</p>
      {life === 'waiting' && <Approve device={device} />}
      <dl className="facts">
        {online && connectedSince && (
          <>
            <dt>{t.uptime}</dt>
            <dd>
              <time dateTime={connectedSince}>{format.dateTime(connectedSince)}</time> <span className="faint">({format.span(spanOf(Date.parse(connectedSince), now))})</span>
            </dd>
          </>
        )}
        {life === 'offline' && lastSeenAt && (
          <>
            <dt>{t.lastSeen}</dt>
            <dd>
              <time dateTime={lastSeenAt}>{format.dateTime(lastSeenAt)}</time> <span className="faint">({format.ago(lastSeenAt, now)})</span>
            </dd>
          </>
        )}
        {disconnectReason && (
          <>
            <dt>{t.lastDisconnect}</dt>
            <dd>{reasonOf(device)}</dd>
          </>
        )}
        {address && (
          <>
            <dt>{online ? t.address : t.lastAddress}</dt>
            <dd>
              <Copyable text={address} label={t.address} />
            </dd>
          </>
        )}
      </dl>
    </section>
  );
}

/** Returns a function that says what a state means, or what to do about it. */
function useAdvice(): (device: Device, life: Life) => string {
  const t = useText(stateTexts);
  return ({ kind, disconnectReason }, life) => {
    switch (life) {
      case 'online':
        return kind === 'server' ? t.adviceServer : t.adviceOnline;
      case 'never':
        return t.adviceNever;
      case 'waiting':
        return t.adviceWaiting;
      case 'expired':
        return t.adviceExpired;
      case 'offline':
        return (t.advice as Record<string, string>)[disconnectReason ?? ''] ?? t.adviceElse;
    }
  };
}

function Approve({ device: { userCode } }: { device: Device }): ReactNode {
  const t = useText(detailTexts);
  const may = usePermits().approve;
  if (!may || !userCode) return <p className="small faint">{t.cannotApprove}</p>;
  return (
    <p>
      <ButtonLink kind="primary" href={`/device?${new URLSearchParams({ code: userCode })}`}>
        {t.approve}
      </ButtonLink>
    </p>
  );
}
