import { hashKey, type QueryClient, type QueryKey } from '@tanstack/react-query';
import type { Allocation, AllocationDetail, Connection, Device, TunnelClient, TunnelEvent } from '../index.js';
import { tunnelKeys } from './queries.js';

/** How long connections are not read again for players who come and go during each reading, in milliseconds. */
const restMs = 5000;

/** Whether a connection is in the list of a query, as far as this can be told without the panel. */
function selects(query: object, connection: Connection): boolean {
  const own: Record<string, unknown> = { ...connection };
  return Object.entries(query).every(([name, value]) => name === 'limit' || value === undefined || own[name] === value);
}

/** Keeps what a QueryClient has read of a panel as the events say. */
export function keeper(client: TunnelClient, queries: QueryClient): { apply(event: TunnelEvent): void; refresh(): void } {
  const keys = tunnelKeys(client);
  const waiting = new Set<string>();

  /**
   * Has queries that are being read read once more afterwards: their result may be older
   * than the event. The read under way goes on, so that a series of events cannot keep a
   * query from ever having a result. `restMs` is between the two.
   */
  function settle(queryKey: QueryKey, restMs = 0): void {
    for (const query of queries.getQueryCache().findAll({ queryKey, fetchStatus: 'fetching' })) {
      const hash = hashKey(query.queryKey);
      if (waiting.has(hash)) continue;
      waiting.add(hash);
      const again = (): void => {
        waiting.delete(hash);
        invalidate(query.queryKey);
      };
      const rest = (): void => void (restMs === 0 ? again() : setTimeout(again, restMs));
      void query.promise?.then(rest, rest);
    }
  }

  /** Reads again what is shown, and the rest when it is shown next. */
  const invalidate = (queryKey: QueryKey): void => {
    settle(queryKey);
    void queries.invalidateQueries({ queryKey }, { cancelRefetch: false });
  };

  /** Puts an item where lists have it; a list that selects or sorts is read again. */
  const store = <T extends { id: unknown }>(lists: QueryKey, item: T): void => {
    for (const query of queries.getQueryCache().findAll({ queryKey: lists })) {
      const list = query.state.data as T[] | undefined;
      const plain = Object.keys(query.queryKey.at(-1) as object).every((name) => name === 'limit');
      if (!plain) invalidate(query.queryKey);
      if (!list) continue;
      if (list.some(({ id }) => id === item.id)) {
        queries.setQueryData(query.queryKey, list.map((old) => (old.id === item.id ? item : old)));
      } else if (plain) {
        // Lists begin with what is newest.
        queries.setQueryData(query.queryKey, [item, ...list]);
      }
    }
    settle(lists);
  };

  const drop = <T extends { id: unknown }>(lists: QueryKey, one: QueryKey, gone: unknown): void => {
    queries.setQueriesData<T[]>({ queryKey: lists }, (list) => list?.filter(({ id }) => id !== gone));
    settle(lists);
    // Who shows it gets the panel's answer: not found.
    invalidate(one);
  };

  /** Shows who has joined; a list that only the panel can select from has them when it is read again. */
  const join = (connection: Connection): void => {
    for (const { queryKey, state } of queries.getQueryCache().findAll({ queryKey: keys.connections })) {
      const list = state.data as Connection[] | undefined;
      if (!selects(queryKey.at(-1) as object, connection)) continue;
      if (list && !list.some(({ id }) => id === connection.id)) queries.setQueryData(queryKey, [connection, ...list]);
      settle(queryKey, restMs);
    }
  };

  const leave = (gone: (connection: Connection) => boolean): void => {
    queries.setQueriesData<Connection[]>({ queryKey: keys.connections }, (list) => (list?.some(gone) ? list.filter((one) => !gone(one)) : list));
    settle(keys.connections, restMs);
  };

  return {
    apply(event) {
      switch (event.type) {
        case 'allocation.created':
        case 'allocation.updated': {
          const key = keys.allocation(event.allocationId);
          store<Allocation>(keys.allocationLists, event.allocation);
          queries.setQueryData<AllocationDetail>(key, (old) => old && { ...old, ...event.allocation });
          // The event does not have what only the detail has, such as the rules in effect.
          invalidate(key);
          invalidate(keys.quota);
          break;
        }
        case 'allocation.deleted':
          drop(keys.allocationLists, keys.allocation(event.allocationId), event.allocationId);
          // Its connections end without events of their own.
          leave(({ allocationId }) => allocationId === event.allocationId);
          invalidate(keys.quota);
          break;
        case 'device.created':
        case 'device.updated': {
          const key = keys.device(event.deviceId);
          store<Device>(keys.deviceLists, event.device);
          queries.setQueryData<Device>(key, (old) => old && event.device);
          settle(key);
          invalidate(keys.pendingDevices);
          break;
        }
        case 'device.deleted':
          drop(keys.deviceLists, keys.device(event.deviceId), event.deviceId);
          invalidate(keys.pendingDevices);
          break;
        case 'connection.opened':
          join(event.connection);
          break;
        case 'connection.closed':
          leave(({ id }) => id === event.connection.id);
          break;
        case 'usage':
          for (const usage of event.usage) queries.setQueryData(keys.liveUsage(usage.allocationId), { ...usage, at: event.at });
          break;
        case 'resync':
          invalidate(keys.all);
          break;
      }
    },
    refresh: () => invalidate(keys.all),
  };
}
