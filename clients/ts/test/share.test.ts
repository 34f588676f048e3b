import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import type { LiveStatus, Positioned, SubscribeOptions, TunnelClient, TunnelEvent } from '../src/index.js';
import { share } from '../src/react/share.js';
import { signal } from './server.js';

const at = '2026-11-30T12:00:00Z';

/** Lends a lock to one at a time, in the order of requests, as the browser does. */
class Locks {
  #tail: Promise<unknown> = Promise.resolve();
  request(_: string, { signal }: { signal: AbortSignal }, work: () => Promise<void>): Promise<void> {
    const mine = this.#tail.then(() => {
      signal.throwIfAborted();
      return work();
    });
    this.#tail = mine.catch(() => undefined);
    return mine;
  }
}

/** A panel with a log of events, and the streams on it. */
class Log {
  readonly events: Positioned<TunnelEvent>[] = [];
  readonly subscriptions: (string | undefined)[] = [];
  #wake = signal();

  add(id: number): void {
    this.events.push({ type: 'allocation.deleted', at, allocationId: id, deviceId: 'd', position: `p${id}` });
    this.#wake.resolve();
    this.#wake = signal();
  }

  client(): TunnelClient {
    const log = this;
    const subscribe = async function* ({ lastEventId, signal, onStatus }: SubscribeOptions) {
      log.subscriptions.push(lastEventId);
      const ended = new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve()));
      let next = lastEventId === undefined ? log.events.length : log.events.findIndex(({ position }) => position === lastEventId) + 1;
      onStatus?.({ live: true, since: 1, asOf: 1, error: undefined });
      while (!signal?.aborted) {
        const event = log.events[next];
        if (event) {
          next++;
          yield event;
        } else await Promise.race([log.#wake.promise, ended]);
      }
    };
    return { baseUrl: '', events: { subscribe } } as unknown as TunnelClient;
  }
}

interface Tab {
  seen: number[];
  statuses: LiveStatus[];
  gaps: number;
  close: () => void;
}

let names = 0;

function browser(): { log: Log; name: string; open: () => Tab } {
  const log = new Log();
  const name = `test ${names++}`;
  return {
    log,
    name,
    open: () => {
      const controller = new AbortController();
      const tab: Tab = { seen: [], statuses: [], gaps: 0, close: () => controller.abort() };
      onTestFinished(tab.close);
      share(log.client(), {
        name,
        signal: controller.signal,
        onEvent: (event) => event.type === 'allocation.deleted' && tab.seen.push(event.allocationId),
        onStatus: (status) => tab.statuses.push(status),
        onGap: () => tab.gaps++,
      });
      return tab;
    },
  };
}

beforeEach(() => vi.stubGlobal('navigator', { locks: new Locks() }));
afterEach(() => void vi.unstubAllGlobals());

test('eight tabs have one stream, and all of its events', async () => {
  const { log, open } = browser();
  const tabs = Array.from({ length: 8 }, open);
  await vi.waitFor(() => expect(tabs.every(({ statuses }) => statuses.at(-1)?.live)).toBe(true));
  for (let id = 1; id <= 5; id++) log.add(id);
  await vi.waitFor(() => expect(tabs.map(({ seen }) => seen)).toEqual(tabs.map(() => [1, 2, 3, 4, 5])));
  expect(log.subscriptions).toHaveLength(1);
});

test('when the leading tab closes another continues where it was: nothing is lost, nothing comes twice', async () => {
  const { log, open } = browser();
  const tabs = Array.from({ length: 4 }, open);
  await vi.waitFor(() => expect(tabs.every(({ statuses }) => statuses.at(-1)?.live)).toBe(true));
  for (let id = 1; id <= 40; id++) {
    log.add(id);
    // Each leader closes while events arrive, until one tab is left.
    if (id % 10 === 0 && id < 40) tabs[id / 10 - 1]?.close();
    if (id % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  const last = tabs[3];
  await vi.waitFor(() => expect(last?.seen).toHaveLength(40));
  expect(last?.seen).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  expect(log.subscriptions).toHaveLength(4);
  expect(log.subscriptions.slice(1)).not.toContain(undefined);
  expect(last?.statuses.every(({ live }) => live)).toBe(true);
});

test('a leader that was behind a tab repeats events, which that tab takes once', async () => {
  const { log, name, open } = browser();
  open();
  const tab = open();
  await vi.waitFor(() => expect(tab.statuses.at(-1)?.live).toBe(true));
  log.add(1);
  log.add(2);
  await vi.waitFor(() => expect(tab.seen).toEqual([1, 2]));
  const behind = new BroadcastChannel(name);
  onTestFinished(() => behind.close());
  for (const event of log.events) behind.postMessage({ kind: 'event', event });
  log.add(3);
  await vi.waitFor(() => expect(tab.seen).toContain(3));
  expect(tab.seen).toEqual([1, 2, 3]);
});

test('a tab that opens later knows the status and where to continue', async () => {
  const { log, open } = browser();
  const first = open();
  await vi.waitFor(() => expect(first.statuses.at(-1)?.live).toBe(true));
  log.add(1);
  await vi.waitFor(() => expect(first.seen).toEqual([1]));
  const second = open();
  await vi.waitFor(() => expect(second.statuses.at(-1)).toMatchObject({ live: true, since: 1 }));
  first.close();
  log.add(2);
  await vi.waitFor(() => expect(second.seen).toEqual([2]));
  expect(log.subscriptions.at(-1)).toBe('p1');
});

test('a leader that does not know where to continue has the others read again', async () => {
  const { open } = browser();
  const first = open();
  const second = open();
  // Neither has seen an event, so no one knows a position.
  await vi.waitFor(() => expect(second.statuses.at(-1)?.live).toBe(true));
  const gaps = second.gaps;
  const third = open();
  first.close();
  await vi.waitFor(() => expect(third.gaps).toBe(1));
  expect(second.gaps).toBe(gaps);
});

test('without locks each tab has its own stream', async () => {
  vi.stubGlobal('navigator', {});
  const { log, open } = browser();
  const tabs = [open(), open()];
  await vi.waitFor(() => expect(log.subscriptions).toHaveLength(2));
  log.add(1);
  await vi.waitFor(() => expect(tabs.map(({ seen }) => seen)).toEqual([[1], [1]]));
});
