import type { ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { texts } from './audit-texts.js';

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Takes objects apart, so that what is equal before and after in them need not be read. */
export function flatten(field: string, before: unknown, after: unknown): [field: string, before: unknown, after: unknown][] {
  if (!isObject(before) && !isObject(after)) return JSON.stringify(before) === JSON.stringify(after) ? [] : [[field, before, after]];
  const [old, now] = [isObject(before) ? before : {}, isObject(after) ? after : {}];
  const names = [...new Set([...Object.keys(old), ...Object.keys(now)])];
  const rows = names.flatMap((name) => flatten(`${field}.${name}`, old[name] ?? null, now[name] ?? null));
  return rows.length > 0 || names.length > 0 ? rows : [[field, before, after]];
}

/** The fields of an entry, each before and after. */
export function Changes({ changes }: { changes: Schemas['AuditEntry']['changes'] }): ReactNode {
  const t = useText(texts);
  const rows = Object.entries(changes).flatMap(([field, [before, after]]) => flatten(field, before, after));
  return (
    <dl className="audit-changes">
      {rows.map(([field, before, after]) => (
        <div key={field}>
          <dt>{fieldName(t.fields, field)}</dt>
          <dd>
            {before !== null && (
              <>
                <span className="unseen">{t.before}: </span>
                <del>
                  <Value value={before} />
                </del>{' '}
                <span aria-hidden="true">→</span>{' '}
              </>
            )}
            <span className="unseen">{t.after}: </span>
            {after === null && before !== null ? <em className="faint">{t.none}</em> : <Value value={after} />}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** The name of a field in words, and where it has none, as the API calls it. */
function fieldName(names: Readonly<Record<string, string>>, field: string): string {
  return names[field] ?? names[field.slice(field.lastIndexOf('.') + 1)] ?? field;
}

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;

function Value({ value }: { value: unknown }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  if (value === null || value === undefined) return <em className="faint">{t.none}</em>;
  if (typeof value === 'boolean') return value ? t.yes : t.no;
  if (typeof value === 'number') return String(value);
  if (typeof value !== 'string') return <code>{JSON.stringify(value)}</code>;
  if (value === '') return <em className="faint">{t.emptyValue}</em>;
  if (time.test(value)) return format.dateTime(value);
  return value;
}
