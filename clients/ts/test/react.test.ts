import { QueryClient, QueryObserver } from '@tanstack/react-query';
import { expect, onTestFinished, test } from 'vitest';
import { createClient, type Allocation, type Connection, type Device, type LiveUsage, type TunnelEvent } from '../src/index.js';
import { keeper } from '../src/react/apply.js';
import { tunnelKeys, tunnelQueries } from '../src/react/queries.js';
import { json, serve, signal } from './server.js';

const at = '2026-11-30T12:00:00Z';
const allocation = (id: number, name = ''): Allocation => ({ id, name, deviceId: 'd' }) as Allocation;
const updated = (a: Allocation, type: 'created' | 'updated' = 'updated'): TunnelEvent => ({
  type: `allocation.${type}`,
  at,
  allocationId: a.id,
  deviceId: a.deviceId,
  allocation: a,
});
const deleted = (id: number): TunnelEvent => ({ type: 'allocation.deleted', at, allocationId: id, deviceId: 'd' });

function setUp(baseUrl = 'http://panel') {
  const client = createClient({ baseUrl });
  const queryClient = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  onTestFinished(() => queryClient.clear());
  const { apply, refresh } = keeper(client, queryClient);
  return { client, queryClient, apply, refresh, keys: tunnelKeys(client), queries: tunnelQueries(client) };
}

test('events change what lists have', () => {
  const { queryClient, apply, queries } = setUp();
  const { queryKey } = queries.allocations();
  const names = (): unknown => queryClient.getQueryData(queryKey)?.map(({ id, name }) => `${id}${name}`);

  apply(updated(allocation(9), 'created'));
  expect(names()).toBeUndefined();

  queryClient.setQueryData(queryKey, [allocation(2), allocation(1)]);
  apply(updated(allocation(3), 'created'));
  apply(updated(allocation(1, 'x')));
  expect(names()).toEqual(['3', '2', '1x']);
  // The same again changes nothing.
  apply(updated(allocation(3), 'created'));
  apply(deleted(2));
  apply(deleted(2));
  expect(names()).toEqual(['3', '1x']);
  expect(queryClient.getQueryState(queryKey)?.isInvalidated).toBe(false);
});

test('a list that selects is read again, and shows no item that it may not select', () => {
  const { queryClient, apply, queries } = setUp();
  const { queryKey } = queries.allocations({ after: 5 });
  queryClient.setQueryData(queryKey, [allocation(1)]);
  apply(updated(allocation(9), 'created'));
  expect(queryClient.getQueryData(queryKey)).toEqual([allocation(1)]);
  expect(queryClient.getQueryState(queryKey)?.isInvalidated).toBe(true);
});

test('events change what is known of one, and what an event does not have is kept and read again', () => {
  const { queryClient, apply, keys } = setUp();
  queryClient.setQueryData(keys.allocation(1), { ...allocation(1), rules: { maxPlayers: 4 } });
  queryClient.setQueryData(keys.device('d'), { id: 'd', online: false } as Device);
  apply(updated(allocation(1, 'x')));
  apply({ type: 'device.updated', at, deviceId: 'd', device: { id: 'd', online: true } as Device });
  expect(queryClient.getQueryData(keys.allocation(1))).toMatchObject({ name: 'x', rules: { maxPlayers: 4 } });
  expect(queryClient.getQueryState(keys.allocation(1))?.isInvalidated).toBe(true);
  expect(queryClient.getQueryData(keys.device('d'))).toMatchObject({ online: true });
});

test.each(['resync', 'a new beginning'])('after %s everything of this panel is read again, and nothing else', (what) => {
  const { queryClient, apply, refresh, keys } = setUp();
  queryClient.setQueryData(keys.allocation(1), allocation(1));
  queryClient.setQueryData(['other'], 1);
  if (what === 'resync') apply({ type: 'resync', at });
  else refresh();
  expect(queryClient.getQueryState(keys.allocation(1))?.isInvalidated).toBe(true);
  expect(queryClient.getQueryState(['other'])?.isInvalidated).toBe(false);
});

test('the last event of an allocation tells what it carries', () => {
  const { queryClient, apply, keys } = setUp();
  const usage = (allocationId: number, players: number): LiveUsage => ({
    allocationId, players, joins: 0, downloadBytes: 10, uploadBytes: 1, downloadDatagrams: 0, uploadDatagrams: 0, seconds: 5,
  });
  apply({ type: 'usage', at, usage: [usage(1, 3), usage(2, 1)] });
  apply({ type: 'usage', at: '2026-11-30T12:00:05Z', usage: [usage(1, 4)] });
  expect(queryClient.getQueryData(keys.liveUsage(1))).toMatchObject({ players: 4, at: '2026-11-30T12:00:05Z' });
  expect(queryClient.getQueryData(keys.liveUsage(2))).toMatchObject({ players: 1, at });
});

test('events tell who joins and who leaves', () => {
  const { queryClient, apply, queries } = setUp();
  const connection = (id: string, allocationId: number): Connection => ({ id, allocationId, protocol: 'tcp' }) as Connection;
  const joins = (id: string, allocationId: number): void => apply({ type: 'connection.opened', at, connection: connection(id, allocationId) });
  const all = queries.connections().queryKey;
  const ofOne = queries.connections({ allocationId: 1, protocol: 'tcp', limit: 10 }).queryKey;
  const ofPrefix = queries.connections({ sourceAddress: '203.0.113.0/24' }).queryKey;
  const shown = (key: typeof all): unknown => queryClient.getQueryData(key)?.map(({ id }) => id);
  joins('early', 1);
  expect(shown(all)).toBeUndefined();

  for (const key of [all, ofOne, ofPrefix]) queryClient.setQueryData(key, [connection('a', 1)]);
  joins('b', 1);
  joins('b', 1);
  joins('c', 2);
  expect(shown(all)).toEqual(['c', 'b', 'a']);
  expect(shown(ofOne)).toEqual(['b', 'a']);
  // Only the panel can tell who is of the prefix.
  expect(shown(ofPrefix)).toEqual(['a']);

  apply({ type: 'connection.closed', at, connection: connection('a', 1) });
  expect([shown(all), shown(ofOne), shown(ofPrefix)]).toEqual([['c', 'b'], ['b'], []]);
  // The end of an allocation is that of its connections.
  apply(deleted(1));
  expect([shown(all), shown(ofOne)]).toEqual([['c'], []]);
});

test('events of a newer panel change nothing', () => {
  const { apply } = setUp();
  apply({ type: 'of.a.newer.panel', at } as unknown as TunnelEvent);
});

test('a list that is being read while an event arrives is read once more, and the first read goes on', async () => {
  const first = signal();
  const arrived = signal();
  const { url, received } = await serve((_, response) => {
    const old = received.length === 1;
    if (old) arrived.resolve();
    void (old ? first.promise : Promise.resolve()).then(() => json(response, 200, [allocation(1, old ? 'old' : 'new')]));
  });
  const { queryClient, apply, queries } = setUp(url);
  const shown = signal();
  const stop = new QueryObserver(queryClient, queries.allocations()).subscribe(({ data }) => {
    if (data?.[0]?.name === 'new') shown.resolve();
  });
  onTestFinished(stop);
  await arrived.promise;
  apply(updated(allocation(1, 'new')));
  apply(updated(allocation(1, 'new')));
  first.resolve();
  await shown.promise;
  expect(received).toHaveLength(2);
});
