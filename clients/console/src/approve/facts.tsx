import type { ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Note } from '../ui/index.js';
import './approve.css';
import { texts } from './texts.js';

/** What is known of a machine that waits for approval: all that a person can decide by. */
export function PendingFacts({ pending }: { pending: Schemas['PendingEnrollment'] }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow();
  const owner = pending.ownerEmail ?? (pending.organisationName ? t.organisation(pending.organisationName) : t.nobody);
  const left = Math.floor((Date.parse(pending.expiresAt) - now) / 1000);
  return (
    <div className="stack">
      <dl className="facts">
        <dt>{t.facts.code}</dt>
        <dd className="approve-code">{pending.userCode}</dd>
        <dt>{t.facts.name}</dt>
        <dd>{pending.name}</dd>
        <dt>{t.facts.kind}</dt>
        <dd>{t.kind[pending.kind]}</dd>
        <dt>{t.facts.platform}</dt>
        <dd>{pending.platform ?? t.unknown}</dd>
        <dt>{t.facts.agent}</dt>
        <dd>{pending.agentVersion ?? t.unknown}</dd>
        <dt>{t.facts.address}</dt>
        <dd>
          {pending.address ?? t.unknown} ({pending.sameNetwork ? t.yourNetwork : t.otherNetwork})
        </dd>
        <dt>{t.facts.since}</dt>
        <dd>
          <time dateTime={pending.createdAt} title={format.dateTime(pending.createdAt)}>
            {format.ago(pending.createdAt, now)}
          </time>
        </dd>
        <dt>{t.facts.owner}</dt>
        <dd>{owner}</dd>
      </dl>
      {!pending.sameNetwork && <Note tone="warn">{t.elsewhere}</Note>}
      {left > 0 ? <p className="small faint">{t.expiresIn(format.span(left >= 60 ? left - (left % 60) : left))}</p> : <Note tone="bad">{t.expired}</Note>}
    </div>
  );
}
