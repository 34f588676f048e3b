import type { ServerResponse } from 'node:http';
import { expect, expectTypeOf, test } from 'vitest';
import { createClient, type LiveStatus, type TunnelEvent } from '../src/index.js';
import { json, problem, serve, signal, type Received } from './server.js';

function frame(id: string, event: object & { type: string }): string {
  return `id: ${id}\nevent: ${event.type}\ndata: ${JSON.stringify({ at: '2026-11-30T12:00:00Z', ...event })}\n\n`;
}

/** Starts a stream that says to come again at once. */
function start(response: ServerResponse, text = ''): ServerResponse {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(`retry: 1\n\n${text}`);
  return response;
}

const deleted = (id: number): TunnelEvent => ({ type: 'allocation.deleted', allocationId: id, deviceId: 'd', at: '2026-11-30T12:00:00Z' });

test('events arrive typed, with a bearer token and the topics asked for', async () => {
  const { url, received } = await serve((_, response) => start(response, frame('1', { type: 'ready' }) + frame('2', deleted(42))));
  const client = createClient({ baseUrl: url, credentials: 'a-token' });
  const seen: (string | undefined)[] = [];
  for await (const event of client.events.subscribe({ types: ['allocation', 'device'] })) {
    seen.push(event.position);
    if (event.type === 'allocation.deleted') {
      expectTypeOf(event.allocationId).toEqualTypeOf<number>();
      expect(event.allocationId).toBe(42);
      break;
    }
  }
  expect(seen).toEqual(['1', '2']);
  expect(received[0]?.url).toBe('/api/events?types=allocation%2Cdevice');
  expect(received[0]?.headers).toMatchObject({ authorization: 'Bearer a-token', accept: 'text/event-stream' });
});

test('an event without an ID of its own has no position', async () => {
  const { url } = await serve((_, response) => start(response, frame('1', { type: 'ready' }) + 'data: {"type":"usage"}\n\n' + frame('2', deleted(42))));
  const seen: unknown[] = [];
  for await (const { type, position } of createClient({ baseUrl: url }).events.subscribe()) {
    seen.push([type, position]);
    if (position === '2') break;
  }
  expect(seen).toEqual([['ready', '1'], ['usage', undefined], ['allocation.deleted', '2']]);
});

test('leaving the loop closes the connection', async () => {
  const closed = signal();
  const { url } = await serve((_, response) => start(response, frame('1', { type: 'ready' })).on('close', closed.resolve));
  for await (const _ of createClient({ baseUrl: url }).events.subscribe()) break;
  await closed.promise;
});

test('a lost connection is made again after the last event, and what is missing is told', async () => {
  const steps: ((response: ServerResponse, request: Received) => void)[] = [
    // The connection breaks within an event.
    (response) => start(response, frame('1', { type: 'ready' }) + frame('2', deleted(1)) + 'id: 3\ndata: {"ty').end(),
    (response) => response.destroy(),
    (response) => response.writeHead(502, { 'Content-Type': 'text/html' }).end('<html>'),
    (response) => start(response, frame('3', deleted(2))).end(),
    (response) => start(response, frame('9', { type: 'resync' }) + frame('10', deleted(3))),
  ];
  const { url, received } = await serve((request, response) => steps.shift()?.(response, request));
  const states: boolean[] = [];
  let last: LiveStatus | undefined;
  const onStatus = (status: LiveStatus): void => {
    if (status.live !== last?.live) states.push(status.live);
    last = status;
  };
  const seen: (string | undefined)[] = [];
  for await (const event of createClient({ baseUrl: url }).events.subscribe({ onStatus })) {
    seen.push(`${event.position} ${event.type}`);
    if (event.position === '10') break;
  }
  expect(seen).toEqual(['1 ready', '2 allocation.deleted', '3 allocation.deleted', '9 resync', '10 allocation.deleted']);
  expect(received.map(({ url }) => new URL(url, 'http://x').searchParams.get('lastEventId'))).toEqual([null, '2', '2', '2', '3']);
  expect(states).toEqual([true, false, true, false, true]);
  expect(last?.asOf).toBeGreaterThanOrEqual(last?.since ?? Infinity);
});

test('silence ends a connection, and comments are no silence', async () => {
  const { url, received } = await serve((_, response) => {
    start(response, received.length === 1 ? '' : frame('5', deleted(1)));
    if (received.length > 1) return;
    let left = 10;
    const timer = setInterval(() => {
      response.write(': heartbeat\n\n');
      if (--left === 0) {
        clearInterval(timer);
        response.write(frame('4', deleted(0)));
      }
    }, 30);
    response.on('close', () => clearInterval(timer));
  });
  const seen: (string | undefined)[] = [];
  const errors: unknown[] = [];
  const onStatus = ({ error }: LiveStatus): void => void (error && errors.push(error));
  for await (const event of createClient({ baseUrl: url }).events.subscribe({ silenceMs: 150, onStatus })) {
    seen.push(event.position);
    if (event.position === '5') break;
  }
  expect(seen).toEqual(['4', '5']);
  expect(received).toHaveLength(2);
  expect(String(errors[0])).toContain('no bytes for 150 ms');
});

test('a caller who is slow loses nothing, and is not taken for silence', async () => {
  const { url, received } = await serve((_, response) => start(response, frame('1', deleted(1)) + frame('2', deleted(2))));
  const seen: (string | undefined)[] = [];
  for await (const event of createClient({ baseUrl: url }).events.subscribe({ silenceMs: 50 })) {
    await new Promise((resolve) => setTimeout(resolve, 120));
    seen.push(event.position);
    if (event.position === '2') break;
  }
  expect(seen).toEqual(['1', '2']);
  expect(received).toHaveLength(1);
});

test('the end of the session ends the stream with the error', async () => {
  const { url, received } = await serve((_, response) =>
    received.length === 1 ? start(response, frame('1', { type: 'ready' })).end() : problem(response, 401, 'unauthorized'),
  );
  const iterator = createClient({ baseUrl: url, credentials: 'x' }).events.subscribe();
  expect((await iterator.next()).value).toMatchObject({ type: 'ready' });
  await expect(iterator.next()).rejects.toMatchObject({ code: 'unauthorized' });
});

test('a new credential continues the stream', async () => {
  const { url, received } = await serve(({ headers }, response) =>
    headers.authorization === 'Bearer new' ? start(response, frame('1', { type: 'ready' })) : problem(response, 401, 'unauthorized'),
  );
  const client = createClient({ baseUrl: url, credentials: ({ refused }) => (refused ? 'new' : 'old') });
  for await (const event of client.events.subscribe()) {
    expect(event.type).toBe('ready');
    break;
  }
  expect(received).toHaveLength(2);
});

test.each(['while connecting', 'while waiting for events', 'while waiting to connect again'])('a signal ends the stream %s', async (when) => {
  const controller = new AbortController();
  const arrived = signal();
  const { url, received } = await serve((_, response) => {
    if (when === 'while waiting for events') start(response, frame('1', { type: 'ready' }));
    if (when === 'while waiting to connect again') problem(response, 503, 'unavailable', {}, { 'Retry-After': '600' });
    arrived.resolve();
  });
  const onStatus = ({ live, error }: LiveStatus): void => {
    if (live || error) setTimeout(() => controller.abort());
  };
  const ended = (async () => {
    for await (const _ of createClient({ baseUrl: url }).events.subscribe({ signal: controller.signal, onStatus }));
  })();
  await arrived.promise;
  if (when === 'while connecting') controller.abort();
  await ended;
  expect(received).toHaveLength(1);
});

test('a response that is no stream is not taken for one', async () => {
  const { url, received } = await serve((_, response) =>
    received.length === 1 ? json(response, 200, {}) : start(response, frame('1', { type: 'ready' })),
  );
  const errors: unknown[] = [];
  const onStatus = ({ error }: LiveStatus): void => void (error && errors.push(error));
  for await (const _ of createClient({ baseUrl: url }).events.subscribe({ onStatus })) break;
  expect(String(errors[0])).toContain('not a stream of events: application/json');
});
