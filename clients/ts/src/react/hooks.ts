import { useMutation, useQuery, useQueryClient, type QueryKey } from '@tanstack/react-query';
import type { RequestOptions, Schemas, TunnelClient } from '../index.js';
import { useIsLive, useTunnel } from './provider.js';
import { tunnelKeys } from './queries.js';

/** How often what is shown is read again while no events arrive, in milliseconds. */
const pollMs = 15_000;

/** Events keep results fresh; without them they are read again from time to time. */
function useFreshness(): { staleTime: number; refetchInterval: number | false } {
  return useIsLive() ? { staleTime: Infinity, refetchInterval: false } : { staleTime: 0, refetchInterval: pollMs };
}

/** All allocations that the caller may see, every page of them. */
export function useAllocations(query?: Parameters<TunnelClient['allocations']['all']>[0]) {
  return useQuery({ ...useTunnel().queries.allocations(query), ...useFreshness() });
}

/** An allocation, with its rules in effect. */
export function useAllocation(id: number) {
  return useQuery({ ...useTunnel().queries.allocation(id), ...useFreshness() });
}

/** What has been carried in a time, read again each minute. */
export function useUsage(query?: Parameters<TunnelClient['usage']['get']>[0]) {
  return useQuery({ ...useTunnel().queries.usage(query), refetchInterval: 60_000 });
}

/**
 * What an allocation carries now, by the last event of it: the players, and what it has
 * carried within the `seconds` before `at`. Undefined until there is one; while an
 * allocation carries nothing there are none, so look at `at`.
 */
export function useLiveUsage(allocationId: number) {
  return useQuery(useTunnel().queries.liveUsage(allocationId)).data;
}

/**
 * The players who are connected now. Events tell who joins and who leaves, and every 10
 * seconds, as often as tunnel servers report bytes and round trips, the list is read again.
 * Without events it is read every 5 seconds.
 */
export function useConnections(query?: Parameters<TunnelClient['connections']['all']>[0]) {
  return useQuery({ ...useTunnel().queries.connections(query), refetchInterval: useIsLive() ? 10_000 : 5000 });
}

/** All devices that the caller may see, every page of them. */
export function useDevices(query?: Parameters<TunnelClient['devices']['all']>[0]) {
  return useQuery({ ...useTunnel().queries.devices(query), ...useFreshness() });
}

/** A device. */
export function useDevice(id: string) {
  return useQuery({ ...useTunnel().queries.device(id), ...useFreshness() });
}

/** What waits for approval under a user code; nothing is asked while the code is empty. */
export function usePendingDevice(userCode: string) {
  return useQuery({ ...useTunnel().queries.pendingDevice(userCode), enabled: userCode !== '', retry: false });
}

/** The webhooks of the caller, or of whom the query names. */
export function useWebhooks(query?: Parameters<TunnelClient['webhooks']['list']>[0]) {
  return useQuery(useTunnel().queries.webhooks(query));
}

/** The newest messages of a webhook, one page of them, read again every 15 seconds. */
export function useWebhookDeliveries(id: number) {
  return useQuery({ ...useTunnel().queries.webhookDeliveries(id), refetchInterval: pollMs });
}

/** Who is logged in. */
export function useSession() {
  return useQuery(useTunnel().queries.session());
}

/** How much of their quota the caller uses. */
export function useQuota() {
  return useQuery({ ...useTunnel().queries.quota(), ...useFreshness() });
}

type Keys = ReturnType<typeof tunnelKeys>;

/** A mutation after which what it has changed is read again, also where no event tells of it. */
function useChange<V, T>(change: (client: TunnelClient, variables: V) => Promise<T>, changed: (keys: Keys) => readonly QueryKey[]) {
  const { client } = useTunnel();
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (variables: V) => change(client, variables),
    onSettled: () => Promise.all(changed(tunnelKeys(client)).map((queryKey) => queries.invalidateQueries({ queryKey }))),
  });
}

/** What an update may name besides its fields. */
type Update<T> = { body: T } & Pick<RequestOptions, 'ifMatch'>;

const allocations = (keys: Keys): readonly QueryKey[] => [keys.allocations, keys.quota];
const devices = (keys: Keys): readonly QueryKey[] => [keys.devices, keys.allocations, keys.pendingDevices, keys.quota];

/** Allocates a port; a request that gets no answer is repeated without allocating two. */
export function useCreateAllocation() {
  return useChange(
    (client, body: Schemas['AllocationCreate']) => client.allocations.create(body, { idempotencyKey: true }),
    allocations,
  );
}

export function useUpdateAllocation() {
  return useChange(
    (client, { id, body, ifMatch }: { id: number } & Update<Schemas['AllocationPatch']>) =>
      client.allocations.update(id, body, { ifMatch }),
    allocations,
  );
}

export function useDeleteAllocation() {
  return useChange((client, id: number) => client.allocations.delete(id), allocations);
}

/** Pauses, resumes or deletes many allocations; the result says what became of each. */
export function useBulkAllocations() {
  return useChange((client, body: Schemas['AllocationsBulk']) => client.allocations.bulk(body), allocations);
}

/** Cuts a player off, and keeps the player's source out for a time if it has one. */
export function useCloseConnection() {
  return useChange(
    (client, { id, ...query }: { id: string } & Parameters<TunnelClient['connections']['close']>[1]) => client.connections.close(id, query),
    (keys) => [keys.connections],
  );
}

export function useCreateDevice() {
  return useChange((client, body: Schemas['DeviceCreate']) => client.devices.create(body, { idempotencyKey: true }), devices);
}

export function useUpdateDevice() {
  return useChange(
    (client, { id, body, ifMatch }: { id: string } & Update<Schemas['DevicePatch']>) => client.devices.update(id, body, { ifMatch }),
    devices,
  );
}

export function useDeleteDevice() {
  return useChange((client, id: string) => client.devices.delete(id), devices);
}

export function useRegenerateDeviceToken() {
  return useChange((client, id: string) => client.devices.regenerateToken(id), devices);
}

export function useDrainDevice() {
  return useChange((client, { id, body }: { id: string; body: Schemas['DeviceDrain'] }) => client.devices.drain(id, body), devices);
}

export function useApproveDevice() {
  return useChange((client, body: Schemas['DeviceApproval']) => client.enrollment.approve(body), devices);
}

export function useDenyDevice() {
  return useChange((client, body: Schemas['DeviceDenial']) => client.enrollment.deny(body), devices);
}

const webhooks = (keys: Keys): readonly QueryKey[] => [keys.webhooks];

/** Makes a webhook. The result has its secret, which cannot be read later. */
export function useCreateWebhook() {
  return useChange((client, body: Schemas['WebhookCreate']) => client.webhooks.create(body, { idempotencyKey: true }), webhooks);
}

export function useUpdateWebhook() {
  return useChange(
    (client, { id, body, ifMatch }: { id: number } & Update<Schemas['WebhookPatch']>) => client.webhooks.update(id, body, { ifMatch }),
    webhooks,
  );
}

export function useDeleteWebhook() {
  return useChange((client, id: number) => client.webhooks.delete(id), webhooks);
}

/** Sends a message at once; the result says what came of it. */
export function useTestWebhook() {
  return useChange((client, id: number) => client.webhooks.test(id), webhooks);
}
