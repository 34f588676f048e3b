import { afterEach, beforeEach, describe, expect, expectTypeOf, test, vi } from 'vitest';
import { createClient, isCode, NetworkError, ResponseError, TimeoutError, TunnelError, type Schemas } from '../src/index.js';
import { json, problem, serve, signal } from './server.js';

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.unreachable('it succeeded'),
    (error: unknown) => error,
  );
}

describe('errors', () => {
  test('of the panel have what it says', async () => {
    const details = [{ field: 'localPort', message: 'is required' }];
    const { url } = await serve((_, response) => problem(response, 400, 'invalid_request', { details }, { 'Retry-After': '7' }));
    const error = await failure(createClient({ baseUrl: url }).allocations.get(1));
    expect(error).toBeInstanceOf(TunnelError);
    expect(error).toMatchObject({ code: 'invalid_request', status: 400, requestId: 'REQ1', details, retryAfter: 7, message: 'it is invalid_request' });
  });

  test('are told apart by code, also by one that only a newer panel has', async () => {
    const quota = { resource: 'allocations', limit: 3, used: 3 };
    const { url } = await serve((_, response) => problem(response, 409, 'quota_exceeded', { quota }));
    const error = await failure(createClient({ baseUrl: url }).allocations.create({ localPort: 1, protocol: 'tcp' }));
    expect(isCode(error, 'port_taken')).toBe(false);
    expect(isCode(error, 'of_a_newer_panel')).toBe(false);
    expect(isCode(new Error('x'), 'quota_exceeded')).toBe(false);
    if (!isCode(error, 'quota_exceeded')) return expect.unreachable('another code');
    expectTypeOf(error.code).toExtend<'quota_exceeded'>();
    expectTypeOf(error.quota).toEqualTypeOf<Schemas['QuotaExcess']>();
    expect(error.quota).toEqual(quota);
  });

  test.each([
    [502, '<html>Bad Gateway</html>', 'text/html'],
    [200, '<html>Log in</html>', 'text/html'],
    [400, '{"error":{"code":1}}', 'application/json'],
  ])('of a proxy (%i) are no errors of the panel', async (status, body, type) => {
    const { url } = await serve((_, response) => response.writeHead(status, { 'Content-Type': type }).end(body));
    const error = await failure(createClient({ baseUrl: url, retries: 0 }).devices.list());
    expect(error).toBeInstanceOf(ResponseError);
    expect(error).toMatchObject({ status, body });
    expect(String(error)).toContain(type);
    expect(String(error)).toContain(url);
  });

  test('of the network have their cause', async () => {
    const { url } = await serve((_, response) => response.destroy());
    const error = await failure(createClient({ baseUrl: url, retries: 0 }).devices.list());
    expect(error).toBeInstanceOf(NetworkError);
    expect((error as Error).message).toContain(`GET ${url}/api/tunnel/devices`);
    expect((error as Error).cause).toBeInstanceOf(Error);
  });

  test.each(['no headers', 'half a body'])('by time-out come with %s', async (what) => {
    const { url } = await serve((_, response) => {
      if (what === 'half a body') response.writeHead(200).write('{');
    });
    const error = await failure(createClient({ baseUrl: url, retries: 0, timeoutMs: 50 }).devices.list());
    expect(error).toBeInstanceOf(TimeoutError);
    expect((error as Error).message).toContain('50 ms');
  });

  test('never name a token', async () => {
    const { url } = await serve((_, response) => response.destroy());
    const client = createClient({ baseUrl: url, retries: 0, credentials: 'the-secret' });
    const error = await failure(client.enrollment.poll({ deviceCode: 'device-secret' }));
    expect((error as Error).message).not.toContain('secret');
  });
});

describe('a signal', () => {
  test('ends a request with its reason', async () => {
    const arrived = signal();
    const { url } = await serve(() => arrived.resolve());
    const controller = new AbortController();
    const pending = failure(createClient({ baseUrl: url }).devices.list({}, { signal: controller.signal }));
    await arrived.promise;
    const reason = new Error('left the page');
    controller.abort(reason);
    expect(await pending).toBe(reason);
  });

  test('that is aborted already sends nothing', async () => {
    const { url, received } = await serve((_, response) => json(response, 200, []));
    const client = createClient({ baseUrl: url });
    await failure(client.devices.list({}, { signal: AbortSignal.abort() }));
    await failure(client.devices.all({}, { signal: AbortSignal.abort() }).next());
    expect(received).toHaveLength(0);
  });
});

describe('repetition', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  type Step = (() => Response) | 'broken';

  const busy = (headers: Record<string, string> = {}) => (): Response =>
    Response.json({ error: 'unavailable', message: 'busy', requestId: 'R' }, { status: 503, headers });
  const ok = (): Response => Response.json({ id: 1 });

  /** A client of a server that answers step by step, and what it was sent when. */
  function scripted(...steps: Step[]) {
    const sent: { at: number; headers: Record<string, string> }[] = [];
    const start = Date.now();
    const client = createClient({
      baseUrl: 'http://panel',
      fetch: async (_, init) => {
        sent.push({ at: Date.now() - start, headers: init?.headers as Record<string, string> });
        const step = steps.shift();
        if (!step || step === 'broken') throw new TypeError('fetch failed');
        return step();
      },
    });
    return { client, sent };
  }

  test('of a GET backs off with jitter', async () => {
    const { client, sent } = scripted('broken', () => new Response('<html>', { status: 502 }), ok);
    const promise = client.devices.get('x');
    await vi.runAllTimersAsync();
    expect(await promise).toEqual({ id: 1 });
    // Half of 500 ms, then half of 1 s.
    expect(sent.map(({ at }) => at)).toEqual([0, 250, 750]);
  });

  test('waits as long as Retry-After says, in seconds or until a date', async () => {
    const { client, sent } = scripted(
      busy({ 'Retry-After': '5' }),
      busy({ Date: 'Mon, 30 Nov 2026 12:00:00 GMT', 'Retry-After': 'Mon, 30 Nov 2026 12:00:20 GMT' }),
      ok,
    );
    const promise = client.devices.get('x');
    await vi.runAllTimersAsync();
    await promise;
    expect(sent.map(({ at }) => at)).toEqual([0, 5250, 25_750]);
  });

  test.each([
    ['without Retry-After', busy()],
    ['with a long one', busy({ 'Retry-After': '3600' })],
  ])('does not follow an error of the panel %s', async (_, step) => {
    const { client, sent } = scripted(step, ok);
    expect(await failure(client.devices.get('x'))).toMatchObject({ code: 'unavailable' });
    expect(sent).toHaveLength(1);
  });

  test('ends after two, with the last error', async () => {
    const { client, sent } = scripted();
    const promise = failure(client.devices.delete('x'));
    await vi.runAllTimersAsync();
    expect(await promise).toBeInstanceOf(NetworkError);
    expect(sent).toHaveLength(3);
  });

  test.each([
    ['POST', (c: ReturnType<typeof createClient>) => c.allocations.create({ protocol: 'tcp', localPort: 1 })],
    ['PATCH', (c: ReturnType<typeof createClient>) => c.allocations.update(1, { name: 'x' })],
  ])('never follows a %s', async (_, request) => {
    for (const step of ['broken', busy({ 'Retry-After': '1' }), () => new Response('', { status: 502 })] as const) {
      const { client, sent } = scripted(step, ok);
      await failure(request(client));
      expect(sent).toHaveLength(1);
    }
  });

  test('of a POST with an idempotency key sends the same key', async () => {
    const { client, sent } = scripted('broken', busy({ 'Retry-After': '1' }), ok);
    const promise = client.allocations.create({ protocol: 'tcp', localPort: 1 }, { idempotencyKey: true });
    await vi.runAllTimersAsync();
    await promise;
    const keys = sent.map(({ headers }) => headers['Idempotency-Key']);
    expect(keys[0]).toMatch(/^[0-9a-f]{32}$/);
    expect(keys).toEqual([keys[0], keys[0], keys[0]]);
  });

  test('waits for the first request with the key, if that is still under way', async () => {
    const { client, sent } = scripted(
      'broken',
      () => Response.json({ error: 'idempotency_in_progress', message: 'x', requestId: 'R' }, { status: 409, headers: { 'Retry-After': '1' } }),
      ok,
    );
    const promise = client.allocations.create({ protocol: 'tcp', localPort: 1 }, { idempotencyKey: 'mine' });
    await vi.runAllTimersAsync();
    await promise;
    expect(sent).toHaveLength(3);
  });

  test('of a POST needs a panel that gets the key', async () => {
    let sent = 0;
    const client = createClient({
      idempotencyKeys: false,
      fetch: async (_, init) => {
        sent++;
        expect(init?.headers).not.toHaveProperty('Idempotency-Key');
        throw new TypeError('fetch failed');
      },
    });
    await failure(client.allocations.create({ protocol: 'tcp', localPort: 1 }, { idempotencyKey: true }));
    expect(sent).toBe(1);
  });

  test('stops waiting when the signal is aborted', async () => {
    const { client, sent } = scripted(busy({ 'Retry-After': '30' }), ok);
    const controller = new AbortController();
    const promise = failure(client.devices.get('x', { signal: controller.signal }));
    await vi.advanceTimersByTimeAsync(1000);
    controller.abort('enough');
    expect(await promise).toBe('enough');
    expect(sent).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});
