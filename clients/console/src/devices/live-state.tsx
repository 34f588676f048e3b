import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { State } from '../ui/index.js';
import { stateTexts } from './state-texts.js';
import { lifeOf, tones } from './state.js';

/** The span of time between two times in milliseconds, without seconds once it has minutes. */
export function spanOf(from: number, to: number): number {
  const seconds = Math.max(0, Math.floor((to - from) / 1000));
  return seconds >= 60 ? seconds - (seconds % 60) : seconds;
}

/** Why a device was disconnected the last time, in words; undefined if that is not known. */
export function useReason(): (device: Device) => string | undefined {
  const t = useText(stateTexts);
  return ({ disconnectReason }) => (disconnectReason ? ((t.reasons as Record<string, string>)[disconnectReason] ?? disconnectReason) : undefined);
}

/** Whether a device is there, since when, and if it is not, why it went. */
export function LiveState({ device }: { device: Device }): ReactNode {
  const t = useText(stateTexts);
  const format = useFormat();
  const now = useNow(5);
  const life = lifeOf(device, now);
  const reason = useReason()(device);
  const { connectedSince, lastSeenAt, expiresAt } = device;
  return (
    <div className="devices-state">
      <State tone={tones[life]}>{t[life]}</State>
      {life === 'online' && connectedSince && <Since at={connectedSince}>{t.forSpan(format.span(spanOf(Date.parse(connectedSince), now)))}</Since>}
      {life === 'offline' && lastSeenAt && (
        <Since at={lastSeenAt}>
          {t.forSpan(format.span(spanOf(Date.parse(lastSeenAt), now)))}
          {reason && `: ${reason}`}
        </Since>
      )}
      {life === 'waiting' && expiresAt && <Since at={expiresAt}>{t.expiresIn(format.span(spanOf(now, Date.parse(expiresAt))))}</Since>}
    </div>
  );
}

function Since({ at, children }: { at: string; children: ReactNode }): ReactNode {
  const format = useFormat();
  return (
    <time className="small faint" dateTime={at} title={format.dateTime(at)}>
      {children}
    </time>
  );
}
