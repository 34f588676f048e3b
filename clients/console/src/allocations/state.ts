import type { Allocation } from '@eclitunnel/sdk';
import { useText } from '../lib/language.js';
import type { Tone } from '../ui/index.js';
import { stateTexts } from './state-texts.js';

export interface Situation {
  tone: Tone;
  /** The state in a word or two. */
  word: string;
  /** What it means, and what to do about it. */
  text: string;
  /** What a machine has said about it, in its own words. */
  detail: string | undefined;
  /** Whether somebody has to do something before players can play. */
  trouble: boolean;
}

/** The local address of a game, as its operator enters it. */
export function targetOf({ localHost, localPort }: Pick<Allocation, 'localHost' | 'localPort'>): string {
  return `${localHost.includes(':') ? `[${localHost}]` : localHost}:${localPort}`;
}

/** Which of the two ends a reason of the panel is about: its sentences name one of them first. */
function isServers(reason: string | null): boolean {
  return reason?.startsWith('the tunnel server ') ?? false;
}

/** Returns a function that says how an allocation is, and what to do. */
export function useSituation(): (allocation: Allocation) => Situation {
  const t = useText(stateTexts);
  return (allocation) => {
    const { status, statusReason, target, targetReason } = allocation;
    const of = (tone: Tone, { word, text }: { word: string; text: string }, detail?: string | null): Situation => ({
      tone,
      word,
      text,
      detail: detail ?? undefined,
      trouble: tone === 'warn' || tone === 'bad',
    });
    switch (status) {
      case 'paused':
        return of('', t.paused);
      case 'failed':
        return of('bad', t.failed, statusReason);
      case 'offline':
        return of('bad', isServers(statusReason) ? t.serverOffline : t.deviceOffline);
      case 'draining':
        return of('warn', t.draining);
      case 'pending':
        return of('', isServers(statusReason) ? t.serverPending : t.devicePending);
      case 'listening':
        if (target === 'down') return of('warn', { word: t.noGame.word, text: t.noGame.text(targetOf(allocation)) }, targetReason);
        return of('good', target === 'up' ? t.open : t.openUnknown);
    }
  };
}
