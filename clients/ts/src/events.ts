import { NetworkError, ResponseError, TunnelError } from './errors.js';
import { Parser } from './sse.js';
import { backoff, check, queryOf, sleep, type Transport } from './transport.js';
import type { TunnelEvent, TunnelEventTopic } from './event-types.js';

/** Whether events arrive now. */
export interface LiveStatus {
  /** Whether the stream is connected and has begun. */
  live: boolean;
  /** Since when it has been so, in milliseconds since 1970. */
  since: number;
  /** When the panel was last heard of: what is shown is true as of then. Undefined if never. */
  asOf: number | undefined;
  /** Why the stream is not connected, if there is a reason. */
  error: unknown;
}

/**
 * An event, and its position in the stream: a later stream can continue after it. An event
 * without one is never sent again.
 */
export type Positioned<E> = E & { readonly position: string | undefined };

export interface SubscribeOptions {
  /** The topics of which events are wanted; all by default. */
  types?: readonly TunnelEventTopic[] | undefined;
  /** Ends the iteration, without an error. */
  signal?: AbortSignal | undefined;
  /** The `position` of the last event that was seen earlier: the stream continues after it. */
  lastEventId?: string | undefined;
  /** Called when the stream begins or is lost, and whenever the panel is heard of. */
  onStatus?: ((status: LiveStatus) => void) | undefined;
  /** After how many milliseconds of silence the connection counts as dead; the default is 40000. */
  silenceMs?: number | undefined;
}

/** The stream of what happens to devices, allocations and connections. */
export interface EventStream {
  /**
   * Returns the events from now on, or after `lastEventId`. It connects when the first is
   * asked for, and connects again whenever the connection is lost, without losing an
   * event; where events are missing there is a `resync` event. It ends with an error only
   * if the panel refuses it for good, as when the session has ended.
   */
  subscribe(options?: SubscribeOptions): AsyncIterableIterator<Positioned<TunnelEvent>>;
}

/** The wait before the first new connection, while the server has not said another. */
const defaultRetryMs = 1000;

/** Reports whether the panel will not answer otherwise by itself. */
function isFinal(error: unknown): boolean {
  return error instanceof TunnelError && error.status < 500 && error.status !== 429;
}

export async function* subscribe(
  transport: Transport,
  { types, signal, lastEventId = '', onStatus, silenceMs = 40_000 }: SubscribeOptions,
): AsyncGenerator<Positioned<TunnelEvent>> {
  let parser = new Parser(lastEventId);
  let status: LiveStatus = { live: false, since: Date.now(), asOf: undefined, error: undefined };
  const tell = (live: boolean, error?: unknown): void => {
    const now = Date.now();
    status = { live, since: live === status.live ? status.since : now, asOf: live ? now : status.asOf, error };
    onStatus?.(status);
  };
  for (let attempt = 0; !signal?.aborted; attempt++) {
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
    let error: unknown;
    try {
      // The position is in the query, because proxies drop headers that they do not know.
      const path = '/api/events' + queryOf({ types: types?.length ? types.join(',') : undefined, lastEventId: parser.lastId || undefined });
      const response = await transport.exchange({ method: 'GET', path, headers: { Accept: 'text/event-stream' } }, { signal }, check);
      if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
        throw new ResponseError(`not a stream of events: ${response.headers.get('content-type')}`, response.status, '');
      }
      reader = response.body?.getReader();
      parser = new Parser(parser.lastId, parser.retryMs);
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
      for (let piece, last = parser.lastId; reader && (piece = await readWithin(reader, silenceMs, signal)); ) {
        if (status.live) tell(true);
        for (const { data, id } of parser.push(decoder.decode(piece, { stream: true }))) {
          attempt = 0;
          if (!status.live) tell(true);
          yield Object.assign(JSON.parse(data) as TunnelEvent, { position: id === last ? undefined : id });
          last = id;
        }
      }
    } catch (caught) {
      error = caught;
    } finally {
      // Also when the caller has left the loop.
      reader?.cancel().catch(() => undefined);
    }
    if (signal?.aborted) break;
    tell(false, error);
    if (isFinal(error)) throw error;
    const seconds = (error as TunnelError | undefined)?.retryAfter ?? 0;
    await sleep(seconds * 1000 + backoff(attempt, parser.retryMs ?? defaultRetryMs), signal).catch(() => undefined);
  }
  tell(false);
}

/** Reads the next piece of a stream; undefined at its end. It fails after a time of silence. */
async function readWithin(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  ms: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  let end = (): void => undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new NetworkError(`no bytes for ${ms} ms`)), ms);
    end = () => reject(signal?.reason);
    signal?.addEventListener('abort', end, { once: true });
    if (signal?.aborted) end();
  });
  try {
    return (await Promise.race([reader.read(), silence])).value;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
  }
}
