// What the built panel, tunnel server and agent tell of a game that is played.
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { QueryClient, QueryObserver } from '@tanstack/react-query';
import { expect, onTestFinished, test } from 'vitest';
import { createClient, isCode, type Allocation, type Connection, type LiveUsage, type TunnelEvent } from '../src/index.js';
import { keeper } from '../src/react/apply.js';
import { tunnelQueries } from '../src/react/queries.js';
import { Player, startDevice, startGame, type Ends } from './programs.js';
import { realPanel } from './realpanel.js';

// What a test starts ends with it.
const ends: Ends = { add: (stop) => onTestFinished(async () => void (await stop())) };

const panel = realPanel();
const client = createClient({ baseUrl: panel.url, credentials: panel.token });

/** Follows the panel's events until the test ends; `until` returns the first one that a test of it accepts. */
function follow() {
  const seen: TunnelEvent[] = [];
  const listeners = new Set<(event: TunnelEvent) => void>();
  const controller = new AbortController();
  const ended = (async () => {
    for await (const event of client.events.subscribe({ signal: controller.signal })) {
      seen.push(event);
      for (const listener of listeners) listener(event);
    }
  })().catch((error: unknown) => {
    if (!controller.signal.aborted) throw error;
  });
  onTestFinished(() => (controller.abort(), ended));
  return {
    seen,
    listen: (to: (event: TunnelEvent) => void) => void listeners.add(to),
    until: <T>(accept: (event: TunnelEvent) => T | undefined): Promise<T> =>
      new Promise((done) => {
        const look = (event: TunnelEvent): void => {
          const found = accept(event);
          if (found === undefined) return;
          listeners.delete(look);
          done(found);
        };
        listeners.add(look);
        seen.forEach(look);
      }),
  };
}

test('players, what they carry, and how they are cut off and let in again', async () => {
  const events = follow();
  const queries = new QueryClient();
  onTestFinished(() => queries.clear());
  const { apply } = keeper(client, queries);
  events.listen(apply);
  await events.until(({ type }) => type === 'ready' || undefined);

  const { device, token } = await client.devices.create({ name: 'live', kind: 'client' });
  onTestFinished(async () => void (await client.devices.delete(device.id)));
  startDevice(ends, panel, token);
  const { id, port } = await client.allocations.create({ deviceId: device.id, protocol: 'tcp', localPort: await startGame(ends) });
  await events.until((event) => (event.type === 'allocation.updated' && event.allocationId === id && event.allocation.status === 'listening') || undefined);

  // A page shows the players of the allocation.
  const query = tunnelQueries(client).connections({ allocationId: id });
  const watch = new QueryObserver(queries, query);
  onTestFinished(watch.subscribe(() => undefined));
  await watch.refetch();
  expect(queries.getQueryData(query.queryKey)).toEqual([]);

  const player = new Player(ends, port);
  await player.play(100_000);
  const joined = await events.until((event) => (event.type === 'connection.opened' && event.connection.allocationId === id ? event.connection : undefined));
  expect(joined).toMatchObject({ deviceId: device.id, protocol: 'tcp', sourceAddress: '127.0.0.1' });
  expect(queries.getQueryData<Connection[]>(query.queryKey)?.map((connection) => connection.id)).toEqual([joined.id]);
  expect((await client.connections.get(joined.id)).sourcePort).toBe(joined.sourcePort);
  expect(await client.connections.list({ allocationId: id, protocol: 'udp' })).toEqual([]);
  const listed: string[] = [];
  for await (const connection of client.connections.all({ allocationId: id, limit: 1 })) listed.push(connection.id);
  expect(listed).toEqual([joined.id]);

  // The counts of the events add up to what the player has sent and got.
  const carried = (): LiveUsage[] => events.seen.flatMap((event) => (event.type === 'usage' ? event.usage : [])).filter(({ allocationId }) => allocationId === id);
  const total = (what: 'uploadBytes' | 'downloadBytes' | 'joins'): number => carried().reduce((sum, usage) => sum + usage[what], 0);
  await events.until((event) => (event.type === 'usage' && total('downloadBytes') >= 100_000) || undefined);
  expect([total('uploadBytes'), total('downloadBytes'), total('joins')]).toEqual([100_000, 100_000, 1]);
  expect(carried().at(-1)?.players).toBe(1);

  await client.connections.close(joined.id, { keepOutSeconds: 600 });
  await player.gone;
  await events.until((event) => (event.type === 'connection.closed' && event.connection.id === joined.id) || undefined);
  expect(queries.getQueryData(query.queryKey)).toEqual([]);
  const [out] = await client.allocations.keptOut(id);
  expect(out?.source).toBe('127.0.0.1');
  await expect(new Player(ends, port).play(1)).rejects.toThrow('has ended');
  await client.allocations.readmit(id, { source: '127.0.0.1' });
  expect(await client.allocations.keptOut(id)).toEqual([]);

  const usage = await client.usage.get({ by: 'allocation', allocationId: id, resolution: 'minute' });
  expect(usage.series).toHaveLength(1);
  expect(usage.series[0]).toMatchObject({ allocationId: id, totals: { uploadBytes: 100_000, downloadBytes: 100_000, joins: 1, peakPlayers: 1 } });
}, 60_000);

test('many allocations are paused, resumed and deleted at once', async () => {
  const { device } = await client.devices.create({ name: 'many', kind: 'client' });
  onTestFinished(async () => void (await client.devices.delete(device.id)));
  const { allocations } = await client.allocations.create({ deviceId: device.id, protocol: 'udp', localPort: 2456, count: 3 });
  const ids = allocations.map(({ id }: Allocation) => id);
  expect((await client.allocations.bulk({ action: 'pause', ids: [...ids, 999_999] })).results).toMatchObject([
    ...ids.map((id) => ({ id, ok: true })),
    { id: 999_999, ok: false, error: 'not_found' },
  ]);
  const paused = await client.allocations.list({ deviceId: device.id, status: 'paused', sort: 'port' });
  expect(paused.map(({ enabled, port }) => [enabled, port])).toEqual(allocations.map(({ port }) => [false, port]));
  await client.allocations.bulk({ action: 'resume', ids });
  expect(await client.allocations.list({ deviceId: device.id, status: 'paused' })).toEqual([]);
  await client.allocations.bulk({ action: 'delete', ids });
  expect(await client.allocations.list({ deviceId: device.id })).toEqual([]);
});

test('a webhook is made, tried, changed and deleted', async () => {
  const arrived: { headers: IncomingHttpHeaders; body: string }[] = [];
  const receiver = createServer((request, response) => {
    let body = '';
    request.on('data', (data: Buffer) => (body += data.toString()));
    request.on('end', () => {
      arrived.push({ headers: request.headers, body });
      response.writeHead(204).end();
    });
  }).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  onTestFinished(() => new Promise<void>((done) => (receiver.closeAllConnections(), receiver.close(() => done()))));
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;

  const idempotencyKey = randomUUID();
  const { id, secret } = await client.webhooks.create({ name: 'alerts', url, events: ['device.offline'] }, { idempotencyKey });
  // The same request again makes no other one, and its secret is still known.
  expect(await client.webhooks.create({ name: 'alerts', url, events: ['device.offline'] }, { idempotencyKey })).toMatchObject({ id, secret });
  expect(secret).toMatch(/^whsec_/);
  expect((await client.webhooks.list()).map((webhook) => webhook.id)).toContain(id);
  const delivery = await client.webhooks.test(id);
  expect(delivery).toMatchObject({ type: 'webhook.test', state: 'delivered', status: 204 });
  expect(arrived[0]?.headers['webhook-id']).toBe(delivery.messageId);
  expect(JSON.parse(arrived[0]?.body ?? '')).toMatchObject({ type: 'webhook.test' });

  const again = await client.webhooks.redeliver(id, delivery.id);
  expect(again.messageId).toBe(delivery.messageId);
  const messages: string[] = [];
  for await (const { messageId } of client.webhooks.allDeliveries(id, { limit: 1 })) messages.push(messageId);
  expect(messages).toContain(delivery.messageId);
  expect((await client.webhooks.rotateSecret(id)).secret).not.toBe(secret);
  const { etag } = await client.webhooks.get(id).withResponse();
  expect(await client.webhooks.update(id, { enabled: false }, { ifMatch: etag })).toMatchObject({ enabled: false, name: 'alerts' });
  const late = client.webhooks.update(id, { enabled: true }, { ifMatch: etag });
  expect(await late.catch((error: unknown) => isCode(error, 'precondition_failed'))).toBe(true);
  await client.webhooks.delete(id);
  expect(await client.webhooks.get(id).catch((error: unknown) => isCode(error, 'not_found'))).toBe(true);
});
