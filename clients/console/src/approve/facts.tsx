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
  const owner = pending.ownerEmail ?? (pending.organisationName ? t.organisation(pending.organisationName) : t.nobody);
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
        <FromWhere pending={pending} />
        <dt>{t.facts.owner}</dt>
        <dd>{owner}</dd>
      </dl>
      {!pending.sameNetwork && <Note tone="warn">{t.elsewhere}</Note>}
      <Expires at={pending.expiresAt} expired={t.expired} />
    </div>
  );
}

/** From where something asked, and when, among the facts about it. */
export function FromWhere({ pending: { address, sameNetwork, createdAt } }: { pending: Pick<Schemas['PendingLogin'], 'address' | 'sameNetwork' | 'createdAt'> }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow();
  return (
    <>
      <dt>{t.facts.address}</dt>
      <dd>
        {address ?? t.unknown} ({sameNetwork ? t.yourNetwork : t.otherNetwork})
      </dd>
      <dt>{t.facts.since}</dt>
      <dd>
        <time dateTime={createdAt} title={format.dateTime(createdAt)}>
          {format.ago(createdAt, now)}
        </time>
      </dd>
    </>
  );
}

/** How long a code can be approved yet, or what to do once it has expired. */
export function Expires({ at, expired }: { at: string; expired: string }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const left = Math.floor((Date.parse(at) - useNow()) / 1000);
  return left > 0 ? <p className="small faint">{t.expiresIn(format.span(left >= 60 ? left - (left % 60) : left))}</p> : <Note tone="bad">{expired}</Note>;
}
