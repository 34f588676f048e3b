import { keepPreviousData, useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useCallback, useEffect, useRef } from 'react';
import type { RequestOptions, Result, TunnelEvent } from '@eclitunnel/sdk';
import { useLiveStatus, useTunnelEvents } from '@eclitunnel/sdk/react';
import { keys, type PagesName } from './keys.js';
import { useQueryParameters } from './url.js';

/** One page of a list. */
export interface Page<T> {
  items: T[];
  /** The position after this page, for `setPage`; undefined on the last one. */
  next: string | undefined;
}

type List<Q, T> = (query?: Q, options?: RequestOptions) => Result<T[]>;

/** The names of query parameters that the panel has for positions. */
const positions = ['after', 'cursor'] as const;

function positionOf(next: string | undefined): string | undefined {
  if (!next) return undefined;
  const parameters = new URL(next, location.origin).searchParams;
  const name = positions.find((name) => parameters.has(name));
  return name && `${name}:${parameters.get(name)}`;
}

/**
 * Reads a list page by page. The position is in the address (`page`), as are the filters
 * that the caller puts there, so that a page can be linked and the browser's Back button
 * works. Events of the `topics` (such as `allocation`) put what has changed in its place
 * in the page, or have it read again.
 */
export function usePages<Q extends object, T extends object>(
  name: PagesName,
  list: List<Q, T>,
  query: Q,
  { topics = [], size = 50, of }: { topics?: readonly string[]; size?: number; of?: number } = {},
): UseQueryResult<Page<T>> & { first(): void; next(): void; onFirst: boolean } {
  const [parameters, setParameters] = useQueryParameters();
  const position = parameters.get('page') ?? undefined;
  const queries = useQueryClient();
  const key = [...keys.pages(name, of), query, position] as const;
  const { live } = useLiveStatus();
  const followed = topics.length > 0;
  const result = useQuery({
    queryKey: key,
    queryFn: async ({ signal }): Promise<Page<T>> => {
      const [parameter, value] = position ? [position.slice(0, position.indexOf(':')), position.slice(position.indexOf(':') + 1)] : [];
      const at = parameter ? { [parameter]: value } : {};
      const { data, next } = await list({ limit: size, ...query, ...at } as Q, { signal }).withResponse();
      return { items: data, next: positionOf(next) };
    },
    placeholderData: keepPreviousData,
    refetchInterval: followed && !live ? 15_000 : false,
  });

  // Many changes at once are one reading.
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  useTunnelEvents(
    useCallback(
      (event: TunnelEvent) => {
        if (event.type !== 'resync' && !topics.some((topic) => event.type.startsWith(`${topic}.`))) return;
        const item = 'allocation' in event ? event.allocation : 'device' in event ? event.device : undefined;
        queries.setQueryData<Page<T>>(key, (page) =>
          page && item ? { ...page, items: page.items.map((old) => ('id' in old && old.id === item.id ? { ...old, ...item } : old)) } : page,
        );
        timer.current ??= setTimeout(() => {
          timer.current = undefined;
          void queries.invalidateQueries({ queryKey: key }, { cancelRefetch: false });
        }, 1000);
      },
      // The key is made anew on each rendering; what it stands for is in these.
      [queries, JSON.stringify(key), topics.join()],
    ),
  );

  const { data } = result;
  return {
    ...result,
    onFirst: !position,
    first: () => setParameters({ page: undefined }),
    next: () => setParameters({ page: data?.next }),
  };
}
