import { queryOptions, skipToken } from '@tanstack/react-query';
import type { LiveUsage, TunnelClient } from '../index.js';

type Query<M extends (...args: never[]) => unknown> = Parameters<M>[0];

type AllocationQuery = Query<TunnelClient['allocations']['all']>;
type ConnectionQuery = Query<TunnelClient['connections']['all']>;
type UsageQuery = Query<TunnelClient['usage']['get']>;
type WebhookQuery = Query<TunnelClient['webhooks']['list']>;
type DeviceQuery = Query<TunnelClient['devices']['all']>;

/** The keys under which results are kept. A shorter key stands for all that begin with it. */
export function tunnelKeys(client: Pick<TunnelClient, 'baseUrl'>) {
  const root = ['eclitunnel', client.baseUrl] as const;
  return {
    all: root,
    allocations: [...root, 'allocations'] as const,
    allocationLists: [...root, 'allocations', 'list'] as const,
    allocationList: (query: AllocationQuery = {}) => [...root, 'allocations', 'list', query] as const,
    allocation: (id: number) => [...root, 'allocations', 'one', id] as const,
    connections: [...root, 'connections'] as const,
    connectionList: (query: ConnectionQuery = {}) => [...root, 'connections', query] as const,
    devices: [...root, 'devices'] as const,
    deviceLists: [...root, 'devices', 'list'] as const,
    deviceList: (query: DeviceQuery = {}) => [...root, 'devices', 'list', query] as const,
    device: (id: string) => [...root, 'devices', 'one', id] as const,
    usage: (query: UsageQuery = {}) => [...root, 'usage', query] as const,
    liveUsage: (allocationId: number) => [...root, 'liveUsage', allocationId] as const,
    pendingDevices: [...root, 'pending'] as const,
    pendingDevice: (userCode: string) => [...root, 'pending', userCode] as const,
    webhooks: [...root, 'webhooks'] as const,
    webhookList: (query: WebhookQuery = {}) => [...root, 'webhooks', 'list', query] as const,
    webhookDeliveries: (id: number) => [...root, 'webhooks', 'deliveries', id] as const,
    session: [...root, 'session'] as const,
    quota: [...root, 'quota'] as const,
  };
}

/** Reads every page. */
async function every<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** The queries of a panel, for `useQuery`, `useSuspenseQuery`, `queryClient.fetchQuery` and their like. */
export function tunnelQueries(client: TunnelClient) {
  const keys = tunnelKeys(client);
  return {
    allocations: (query: AllocationQuery = {}) =>
      queryOptions({
        queryKey: keys.allocationList(query),
        queryFn: ({ signal }) => every(client.allocations.all(query, { signal })),
      }),
    allocation: (id: number) =>
      queryOptions({ queryKey: keys.allocation(id), queryFn: ({ signal }) => client.allocations.get(id, { signal }) }),
    connections: (query: ConnectionQuery = {}) =>
      queryOptions({
        queryKey: keys.connectionList(query),
        queryFn: ({ signal }) => every(client.connections.all(query, { signal })),
      }),
    devices: (query: DeviceQuery = {}) =>
      queryOptions({ queryKey: keys.deviceList(query), queryFn: ({ signal }) => every(client.devices.all(query, { signal })) }),
    device: (id: string) => queryOptions({ queryKey: keys.device(id), queryFn: ({ signal }) => client.devices.get(id, { signal }) }),
    usage: (query: UsageQuery = {}) =>
      queryOptions({ queryKey: keys.usage(query), queryFn: ({ signal }) => client.usage.get(query, { signal }) }),
    /** What an allocation has carried by the last event of it, which alone can tell. */
    liveUsage: (allocationId: number) =>
      queryOptions<LiveUsage & { at: string }>({ queryKey: keys.liveUsage(allocationId), queryFn: skipToken, staleTime: Infinity }),
    pendingDevice: (userCode: string) =>
      queryOptions({
        queryKey: keys.pendingDevice(userCode),
        queryFn: ({ signal }) => client.enrollment.pending({ userCode }, { signal }),
      }),
    webhooks: (query: WebhookQuery = {}) =>
      queryOptions({ queryKey: keys.webhookList(query), queryFn: ({ signal }) => client.webhooks.list(query, { signal }) }),
    webhookDeliveries: (id: number) =>
      queryOptions({
        queryKey: keys.webhookDeliveries(id),
        queryFn: ({ signal }) => client.webhooks.deliveries(id, {}, { signal }),
      }),
    session: () => queryOptions({ queryKey: keys.session, queryFn: ({ signal }) => client.auth.session({ signal }) }),
    quota: () => queryOptions({ queryKey: keys.quota, queryFn: ({ signal }) => client.account.quota({ signal }) }),
  };
}
