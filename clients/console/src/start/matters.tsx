import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useHostWarning } from '../lib/host-warning.js';
import { useText } from '../lib/language.js';
import { State, type Tone } from '../ui/index.js';
import { kinds, type Matter } from './attention.js';
import { texts } from './overview-texts.js';

/** How many matters of one kind are named. */
const named = 3;

interface Sentence {
  tone: Tone;
  title: string;
  text: string;
  href: string;
}

/** Where all matters of a kind are. */
const lists: Record<Matter['kind'], string> = {
  serverOffline: '/site',
  hostWarning: '/site',
  draining: '/site',
  drained: '/site',
  offline: '/devices',
  never: '/devices',
  outdated: '/devices',
  waits: '/devices',
  failed: '/allocations?state=failed',
  noGame: '/allocations?state=noGame',
  quota: '/account',
};

/** Returns a function that puts a matter in words. */
function useSentence(): (matter: Matter) => Sentence {
  const t = useText(texts);
  const format = useFormat();
  const hostWarning = useHostWarning();
  const now = useNow(10);
  const ago = (at: string | null): string => (at ? format.ago(at, now) : t.noData);
  return (matter) => {
    switch (matter.kind) {
      case 'quota':
        return { tone: 'warn', title: t.quota[matter.resource], text: t.quotaText[matter.resource](format.number(matter.used), format.number(matter.limit)), href: lists.quota };
      case 'failed':
      case 'noGame': {
        const { port, device } = matter;
        const name = port.name ? `${port.name} (${port.publicAddress})` : port.publicAddress;
        const href = `/allocations/${port.id}`;
        if (matter.kind === 'failed') return { tone: 'bad', title: t.failed(name), text: port.statusReason ?? t.failedText, href };
        return { tone: 'warn', title: t.noGame(name), text: t.noGameText(`${port.localHost}:${port.localPort}`, device?.name ?? ''), href };
      }
    }
    const { name, id, lastSeenAt, agentVersion, server } = matter.device;
    const href = `/devices/${id}`;
    switch (matter.kind) {
      case 'offline':
        return { tone: 'bad', title: t.offline(name), text: t.offlineSince(ago(lastSeenAt)), href };
      case 'never':
        return { tone: 'warn', title: t.never(name), text: t.neverText, href };
      case 'outdated':
        return { tone: 'warn', title: t.outdated(name), text: t.outdatedText(agentVersion ?? t.noData), href };
      case 'waits':
        return { tone: '', title: t.waits(name), text: t.waitsText, href: '/device' };
      case 'serverOffline':
        return { tone: 'bad', title: t.serverOffline(name), text: t.serverOfflineText(ago(lastSeenAt)), href };
      case 'draining':
        return { tone: 'warn', title: t.draining(name), text: t.drainingText(format.number(server?.players ?? 0)), href };
      case 'drained':
        return { tone: 'warn', title: t.drained(name), text: t.drainedText, href };
      case 'hostWarning':
        return { tone: 'warn', title: t.hostWarning(name), text: hostWarning(server?.publicHostWarning ?? ''), href };
    }
  };
}

/** The list of what needs attention; of each kind the first few, and how many more there are. */
export function Matters({ matters }: { matters: readonly Matter[] }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const sentence = useSentence();
  return (
    <ul className="overview-matters">
      {kinds.map((kind) => {
        const all = matters.filter((matter) => matter.kind === kind);
        return all.slice(0, named).map((matter, index) => {
          const { tone, title, text, href } = sentence(matter);
          const more = index === named - 1 ? all.length - named : 0;
          return (
            <li key={`${kind} ${href} ${index}`}>
              <p>
                <State tone={tone}>
                  <Link href={href}>{title}</Link>
                </State>
              </p>
              <p className="small faint">
                {text}
                {more > 0 && (
                  <>
                    {' '}
                    <Link href={lists[kind]}>{t.andMore(format.number(more))}</Link>
                  </>
                )}
              </p>
            </li>
          );
        });
      })}
    </ul>
  );
}
