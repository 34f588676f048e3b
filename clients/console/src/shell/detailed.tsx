import { isCode } from '@eclitunnel/sdk';
import type { UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { ButtonLink, ErrorNote, Loading, PageHead } from '../ui/index.js';

interface DetailedProps<T> {
  query: UseQueryResult<T>;
  /** The page with the list of such things. */
  list: string;
  /** `title` is that of the list, `off` says that the panel has the feature switched off. */
  texts: Readonly<Record<'title' | 'off' | 'goneTitle' | 'gone' | 'toList', string>>;
  children: (data: T) => ReactNode;
}

/** A page about one thing: what was read of it, or a page that says that it is gone or why it cannot be read. */
export function Detailed<T>({ query, list, texts: t, children }: DetailedProps<T>): ReactNode {
  // What was read before it was deleted says nothing any more.
  if (isCode(query.error, 'not_found')) {
    return (
      <>
        <PageHead title={t.goneTitle} about={t.gone} crumbs={<Link href={list}>{t.title}</Link>} />
        <p>
          <ButtonLink href={list}>{t.toList}</ButtonLink>
        </p>
      </>
    );
  }
  if (query.data !== undefined) return children(query.data);
  if (!query.isError) return <Loading />;
  return (
    <>
      <PageHead title={t.title} />
      <ErrorNote error={query.error} messages={{ feature_disabled: t.off }} onAgain={() => void query.refetch()} />
    </>
  );
}
