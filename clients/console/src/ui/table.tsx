import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { Button } from './button.js';
import { texts } from './texts.js';

export interface Column<T> {
  /** The heading, and the label of the value where rows are cards. Empty for a column of actions. */
  title: string;
  cell(item: T): ReactNode;
  /** The name by which the panel sorts the list. */
  sort?: string;
  kind?: 'number' | 'actions';
}

interface TableProps<T> {
  /** What the table is, for those who do not see it. */
  caption: string;
  columns: readonly Column<T>[];
  items: readonly T[];
  keyOf(item: T): string | number;
}

/**
 * A table that becomes cards where the page is narrow. The order is in the page's address
 * (`sort`, as the panel takes it: a name, with - before it from the largest on).
 */
export function Table<T>({ caption, columns, items, keyOf }: TableProps<T>): ReactNode {
  const [parameters, setParameters] = useQueryParameters();
  const sort = parameters.get('sort') ?? '';
  const direction = (name: string | undefined) => (!name ? undefined : sort === name ? 'ascending' : sort === `-${name}` ? 'descending' : 'none');
  return (
    <div className="table-frame">
      <table className="table">
        <caption className="unseen">{caption}</caption>
        <thead>
          <tr>
            {columns.map(({ title, sort: name, kind }) => (
              <th key={title} scope="col" className={kind} aria-sort={direction(name)}>
                {name ? (
                  <button type="button" className="sort" onClick={() => setParameters({ sort: sort === name ? `-${name}` : name, page: undefined })}>
                    {title} <span aria-hidden="true">{{ ascending: '▲', descending: '▼', none: '↕' }[direction(name) ?? 'none']}</span>
                  </button>
                ) : (
                  title || <span className="unseen">…</span>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={keyOf(item)}>
              {columns.map(({ title, cell, kind }) => (
                <td key={title} className={kind} data-label={title || undefined}>
                  {cell(item)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The buttons below a list of `usePages`; nothing if the list has one page. */
export function Pager({ pages }: { pages: { onFirst: boolean; first(): void; next(): void; data?: { next: string | undefined } | undefined; isPlaceholderData: boolean } }): ReactNode {
  const t = useText(texts);
  if (pages.onFirst && !pages.data?.next) return null;
  return (
    <div className="pager">
      <Button compact disabled={pages.onFirst} onClick={pages.first}>
        {t.firstPage}
      </Button>
      <Button compact disabled={!pages.data?.next} busy={pages.isPlaceholderData} onClick={pages.next}>
        {t.nextPage}
      </Button>
    </div>
  );
}
