import { useLiveStatus } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { State } from '../ui/index.js';
import { texts } from './texts.js';

/** How long the stream of events may be away before the page says so, in milliseconds. */
const graceMs = 5000;

/** Says whether what the page shows is kept fresh by events, and else how old it is. */
export function LiveMark(): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow();
  const { live, since, asOf } = useLiveStatus();
  const lost = !live && now - since >= graceMs;
  return (
    <span className="live-mark small" role="status">
      {lost ? <State tone="warn">{asOf ? t.stale(format.time(asOf)) : t.offline}</State> : live || asOf ? <State tone="good">{t.live}</State> : <State>{t.connecting}</State>}
    </span>
  );
}
