import { useEffect, useRef, type ReactNode } from 'react';
import type { UseQueryResult } from '@tanstack/react-query';
import { useExplain, type OwnMessages } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { Button } from './button.js';
import { texts } from './texts.js';

export type Tone = 'good' | 'warn' | 'bad' | '';

/** A state in a word or two, with a mark before it. */
export function State({ tone = '', children }: { tone?: Tone | undefined; children: ReactNode }): ReactNode {
  return <span className={`state ${tone}`}>{children}</span>;
}

/** A paragraph that is set apart. `live` has screen readers say it when it appears. */
export function Note({ tone = '', live = false, children }: { tone?: Tone; live?: boolean; children: ReactNode }): ReactNode {
  return (
    <div className={`note ${tone}`} role={live ? 'status' : undefined}>
      {children}
    </div>
  );
}

/** Says what went wrong, with the ID of the request for the operator's log. */
export function ErrorNote({ error, messages, onAgain }: { error: unknown; messages?: OwnMessages | undefined; onAgain?: (() => void) | undefined }): ReactNode {
  const t = useText(texts);
  const { message, requestId, fields } = useExplain()(error, messages);
  return (
    <div className="note bad" role="alert">
      <p>{message}</p>
      {fields.length > 0 && (
        <ul>
          {fields.map(({ field, message }) => (
            <li key={field}>
              <code>{field}</code>: {message}
            </li>
          ))}
        </ul>
      )}
      {requestId && <p className="small faint mono">{t.request(requestId)}</p>}
      {onAgain && (
        <p>
          <Button compact onClick={onAgain}>
            {t.again}
          </Button>
        </p>
      )}
    </div>
  );
}

/** Stands where there is nothing yet, and says what to do about it. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }): ReactNode {
  return (
    <div className="empty sheet">
      <h2>{title}</h2>
      {children && <p>{children}</p>}
      {action}
    </div>
  );
}

/** Says that something loads, if that takes longer than a moment. */
export function Loading(): ReactNode {
  const t = useText(texts);
  return (
    <p className="loading" role="status">
      {t.loading}
    </p>
  );
}

/**
 * Shows what a query has read: loading, the error, or the result. A result stays while it is
 * read again, also when that fails: the live mark says how old it is.
 */
export function Loaded<T>({ query, messages, children }: { query: UseQueryResult<T>; messages?: OwnMessages; children: (data: T) => ReactNode }): ReactNode {
  if (query.data !== undefined) return children(query.data);
  if (query.isError) return <ErrorNote error={query.error} messages={messages} onAgain={() => void query.refetch()} />;
  return <Loading />;
}

/** The heading of a page, which names the browser's tab and takes the focus of a new page. */
export function PageHead({ title, crumbs, about, actions }: { title: string; crumbs?: ReactNode; about?: ReactNode; actions?: ReactNode }): ReactNode {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · EcliTunnel`;
  }, [title]);
  useEffect(() => {
    // Where a link led here, its element is gone and the focus with it.
    if (document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, []);
  return (
    <header className="page-head">
      <div>
        {crumbs && <p className="crumbs">{crumbs}</p>}
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {about && <p className="faint">{about}</p>}
      </div>
      {actions && <div className="row">{actions}</div>}
    </header>
  );
}
