import { expect, test } from 'vitest';
import { createClient, isCode, TunnelError, type TunnelClient } from '../src/index.js';
import { realPanel } from './realpanel.js';

const panel = realPanel();
const client = createClient({ baseUrl: panel.url, credentials: panel.token });

async function failure(promise: Promise<unknown>): Promise<TunnelError> {
  const error: unknown = await promise.then(
    () => expect.unreachable('it succeeded'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(TunnelError);
  return error as TunnelError;
}

async function newDevice(name: string, as: TunnelClient = client): Promise<string> {
  const { device } = await as.devices.create({ name, kind: 'client' });
  return device.id;
}

test('a machine is enrolled, seen, approved, and gets its token', async () => {
  const anyone = createClient({ baseUrl: panel.url });
  const { deviceCode, userCode } = await anyone.enrollment.start({ name: 'home-server', kind: 'client' });
  expect(await client.enrollment.pending({ userCode })).toMatchObject({ name: 'home-server' });
  const { device } = await client.enrollment.approve({ userCode });
  expect(device.approved).toBe(true);
  const { approved, token } = await anyone.enrollment.poll({ deviceCode });
  expect(approved).toBe(true);
  // The device's token is a credential of its own.
  expect(await createClient({ baseUrl: panel.url, credentials: token ?? '' }).devices.get(device.id)).toMatchObject({ name: 'home-server' });
  await client.devices.delete(device.id);
});

test('ports are opened, listed over pages, changed and closed', async () => {
  const deviceId = await newDevice('pages');
  const { allocations } = await client.allocations.create({ deviceId, protocol: 'udp', localPort: 2456, count: 5 });
  expect(allocations).toHaveLength(5);
  const ids: number[] = [];
  for await (const { id, deviceId: of } of client.allocations.all({ limit: 2 })) if (of === deviceId) ids.push(id);
  expect(ids.sort()).toEqual(allocations.map(({ id }) => id).sort());

  const [first] = allocations;
  const id = first?.id ?? 0;
  const { data, etag } = await client.allocations.get(id).withResponse();
  expect(data.localPort).toBe(2456);
  expect((await client.allocations.update(id, { name: 'valheim' }, { ifMatch: etag })).name).toBe('valheim');
  expect(await client.allocations.delete(id)).toEqual({ success: true });
  expect((await failure(client.allocations.get(id))).code).toBe('not_found');
  await client.devices.delete(deviceId);
});

test('errors say what is wrong', async () => {
  const deviceId = await newDevice('errors');
  const { port } = await client.allocations.create({ deviceId, protocol: 'tcp', localPort: 1 });
  const taken = await failure(client.allocations.create({ deviceId, protocol: 'tcp', localPort: 1, port }));
  expect(isCode(taken, 'port_taken')).toBe(true);
  expect(taken.status).toBe(409);
  expect(taken.requestId).not.toBe('');
  const invalid = await failure(client.allocations.create({ deviceId, protocol: 'tcp', localPort: 70_000 }));
  expect(invalid.details.map(({ field }) => field)).toEqual(['localPort']);
  expect((await failure(createClient({ baseUrl: panel.url }).account.get())).code).toBe('unauthorized');
  await client.devices.delete(deviceId);
});

test('a session ends, and a new one is asked for', async () => {
  const logIn = async (): Promise<string> => (await client.auth.login({ email: panel.email, password: panel.password })).token;
  const first = await logIn();
  await createClient({ baseUrl: panel.url, credentials: first }).auth.logout();
  const asked: unknown[] = [];
  const renewing = createClient({
    baseUrl: panel.url,
    credentials: ({ refused }) => {
      asked.push(refused);
      return refused ? logIn() : first;
    },
  });
  expect((await renewing.account.get()).email).toBe(panel.email);
  expect(asked).toEqual([undefined, first]);
});

test('events tell of what happens', async () => {
  const controller = new AbortController();
  let deviceId = '';
  const seen: string[] = [];
  for await (const event of client.events.subscribe({ types: ['device', 'allocation'], signal: controller.signal })) {
    if (event.type === 'ready') deviceId = await newDevice('events').then(async (id) => (await client.devices.delete(id), id));
    if ('deviceId' in event && event.deviceId === deviceId) seen.push(event.type);
    if (event.type === 'device.deleted' && event.deviceId === deviceId) break;
  }
  expect(seen.at(0)).toBe('device.created');
  expect(seen.at(-1)).toBe('device.deleted');
});
