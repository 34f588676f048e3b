import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePages } from '../lib/pages.js';
import { useQueryParameters } from '../lib/url.js';
import { Button, Empty, Loaded, Pager, Table } from '../ui/index.js';
import { Changes } from './audit-changes.js';
import { AuditFilters, filterNames, useAuditFilter } from './audit-filters.js';
import { texts } from './audit-texts.js';
import './audit.css';

type Entry = Schemas['AuditEntry'];

export interface AuditTrailProps {
  /** What the trail is of: an organisation, a user, or, for an admin of the panel, everything. */
  query?: { organisationId?: number; userId?: number };
}

/** The audit trail with its filters, which are in the page's address. */
export function AuditTrail({ query = {} }: AuditTrailProps): ReactNode {
  const t = useText(texts);
  const [, setParameters] = useQueryParameters();
  const filter = useAuditFilter();
  const pages = usePages('audit', client.audit.list, { ...filter, ...query });
  const filtered = Object.keys(filter).length > 0;
  return (
    <div className="stack">
      <AuditFilters fixed={query} />
      <Loaded query={pages}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty
              title={filtered ? t.nothing : t.empty}
              action={filtered && <Button onClick={() => setParameters(Object.fromEntries([...filterNames, 'page'].map((name) => [name, undefined])))}>{t.clear}</Button>}
            >
              {filtered ? t.nothingText : t.emptyText}
            </Empty>
          ) : (
            <div className="audit-list" aria-busy={pages.isPlaceholderData}>
              <Entries items={items} />
              <Pager pages={pages} />
            </div>
          )
        }
      </Loaded>
    </div>
  );
}

function Entries({ items }: { items: readonly Entry[] }): ReactNode {
  const t = useText(texts);
  return (
    <Table
      caption={t.title}
      items={items}
      keyOf={(entry) => entry.id}
      columns={[
        { title: t.at, cell: (entry) => <When at={entry.at} /> },
        { title: t.actor, cell: (entry) => <Actor entry={entry} /> },
        { title: t.what, cell: (entry) => <What entry={entry} /> },
      ]}
    />
  );
}

function When({ at }: { at: string }): ReactNode {
  const format = useFormat();
  const now = useNow(60);
  return (
    <time dateTime={at} title={format.ago(at, now)}>
      {format.dateTime(at)}
    </time>
  );
}

/** The value of the filter `actor` that finds what this actor did; undefined if there is none. */
function actorFilter({ kind, id }: Entry['actor']): string | undefined {
  if (['panel', 'anonymous', 'unknown'].includes(kind)) return kind;
  return id === null ? undefined : `${kind}:${id}`;
}

function Actor({ entry: { actor } }: { entry: Entry }): ReactNode {
  const t = useText(texts);
  const [, setParameters] = useQueryParameters();
  const kind = (t.actors as Record<string, string>)[actor.kind] ?? actor.kind;
  const filter = actorFilter(actor);
  const name = actor.name ?? (actor.kind === 'user' ? t.admin : kind);
  return (
    <div>
      {filter ? (
        <button type="button" className="link audit-name" title={t.only(name)} onClick={() => setParameters({ actor: filter, page: undefined })}>
          {name}
        </button>
      ) : (
        <span className="audit-name">{name}</span>
      )}
      <div className="small faint">{[actor.name && actor.kind !== 'user' ? kind : undefined, actor.address].filter(Boolean).join(' · ')}</div>
    </div>
  );
}

/** Up to how many changed fields an entry shows at once. */
const inline = 2;

function What({ entry }: { entry: Entry }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const [, setParameters] = useQueryParameters();
  const [open, setOpen] = useState(false);
  const { action, target, changes, count } = entry;
  const kind = (t.targets as Record<string, string>)[target.kind] ?? target.kind;
  const fields = Object.keys(changes).length;
  const filter = target.id === null ? (target.kind === 'settings' ? 'settings' : undefined) : `${target.kind}:${target.id}`;
  const name = target.kind === 'settings' ? undefined : (target.name ?? target.id);
  return (
    <div className="audit-what">
      <div>
        <strong title={action}>{(t.actionNames as Record<string, string>)[action] ?? action}</strong>
        {count > 1 && <span className="faint"> {t.times(format.number(count))}</span>}
      </div>
      {name && (
        <div className="small">
          <span className="faint">{kind}</span>{' '}
          {filter ? (
            <button type="button" className="link audit-name" title={t.only(name)} onClick={() => setParameters({ target: filter, page: undefined })}>
              {name}
            </button>
          ) : (
            <span className="audit-name">{name}</span>
          )}
        </div>
      )}
      {fields > 0 && fields <= inline && (
        <div className="small">
          <Changes changes={changes} />
        </div>
      )}
      {fields > inline && (
        <details className="small" onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary>{t.changed(fields)}</summary>
          {open && <Changes changes={changes} />}
        </details>
      )}
    </div>
  );
}
