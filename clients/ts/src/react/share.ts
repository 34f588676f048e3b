import type { LiveStatus, Positioned, TunnelClient, TunnelEvent } from '../index.js';

export interface ShareOptions {
  /** Whose events these are: tabs with the same name share a stream. */
  name: string;
  signal: AbortSignal;
  onEvent: (event: TunnelEvent) => void;
  onStatus: (status: LiveStatus) => void;
  /** Events may be missing here: what has been read has to be read again. */
  onGap: () => void;
}

type Message =
  | { kind: 'event'; event: Positioned<TunnelEvent> }
  | { kind: 'status'; status: LiveStatus; position: string | undefined }
  // A tab without a position asks what is known.
  | { kind: 'hello' }
  // A leader without a position: what came before it may be lost.
  | { kind: 'gap' };

/** How long after the last word of the leading tab the stream counts as lost. */
const silenceMs = 60_000;

/** How many positions are kept to know events that come twice. */
const remembered = 1000;

/** How long to wait before the stream is tried again after it has ended for good. */
const pauseMs = 30_000;

/**
 * Gives one tab of the browser the stream of events, and all tabs its events. The browser
 * lends that tab a lock; when the tab closes another one gets it, and continues the stream
 * after the last event that it has seen. Where the browser has no locks, as on pages
 * without TLS, each tab has a stream of its own.
 */
export function share(client: TunnelClient, { name, signal, onEvent, onStatus, onGap }: ShareOptions): void {
  const locks = typeof navigator === 'undefined' ? undefined : navigator.locks;
  const channel = locks && typeof BroadcastChannel !== 'undefined' ? new BroadcastChannel(name) : undefined;
  const seen = new Set<string>();
  let position: string | undefined;
  let leading = !channel;
  let status: LiveStatus = { live: false, since: Date.now(), asOf: undefined, error: undefined };
  let watch: ReturnType<typeof setTimeout> | undefined;

  const post = (message: Message): void => {
    // A tab whose lock has ended may still read the rest of a piece.
    if (!signal.aborted) channel?.postMessage(message);
  };
  const setStatus = (next: LiveStatus): void => {
    status = next;
    clearTimeout(watch);
    if (status.live && !leading) {
      watch = setTimeout(() => setStatus({ ...status, live: false, since: Date.now() }), silenceMs);
    }
    onStatus(status);
  };
  /** Hands on an event, unless it has been: a new leader continues where it was, which may be behind this tab. */
  const take = (event: Positioned<TunnelEvent>): void => {
    if (event.position !== undefined) {
      if (seen.has(event.position)) return;
      seen.add(event.position);
      if (seen.size > remembered) seen.delete(seen.values().next().value as string);
      position = event.position;
    }
    onEvent(event);
  };
  const lead = async (): Promise<void> => {
    leading = true;
    if (position === undefined) {
      post({ kind: 'gap' });
    }
    while (!signal.aborted) {
      const stream = client.events.subscribe({
        signal,
        lastEventId: position,
        onStatus: (next) => {
          setStatus(next);
          post({ kind: 'status', status: withoutError(next), position });
        },
      });
      try {
        for await (const event of stream) {
          post({ kind: 'event', event });
          take(event);
        }
      } catch {
        // The status has the error: the session has ended. Somebody may log in again.
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, pauseMs);
          signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
        });
      }
    }
  };

  if (!channel || !locks) {
    void lead();
    return;
  }
  channel.onmessage = ({ data }: MessageEvent<Message>) => {
    if (signal.aborted) return;
    if (data.kind === 'event') take(data.event);
    else if (data.kind === 'status') {
      position ??= data.position;
      if (!leading) setStatus(data.status);
    } else if (data.kind === 'gap') onGap();
    else if (leading) post({ kind: 'status', status: withoutError(status), position });
  };
  signal.addEventListener('abort', () => {
    clearTimeout(watch);
    channel.close();
  });
  post({ kind: 'hello' });
  locks.request(name, { signal }, lead).catch(() => undefined);
}

/** What can be sent to another tab: an error may hold anything. */
function withoutError(status: LiveStatus): LiveStatus {
  return { ...status, error: status.error && new Error(String(status.error)) };
}
