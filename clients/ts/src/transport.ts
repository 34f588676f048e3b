import { NetworkError, ResponseError, TimeoutError, TunnelError, type Problem } from './errors.js';
import type { RequestOptions } from './types.js';

/**
 * How requests are authenticated.
 *
 * - A string: a session token, a device's token or an API key, sent as a bearer token.
 * - A function that returns one. It is called before each request, and once more if the
 *   panel answers 401, with the token that was refused; if it then returns another one,
 *   the request is sent again.
 * - `same-origin` or `include`: the browser's cookies, as in `fetch`.
 */
export type Credentials =
  | 'same-origin'
  | 'include'
  | (string & Record<never, never>)
  | ((context: { refused: string | undefined }) => string | Promise<string>);

export interface ClientOptions {
  /** The URL of the panel, such as `https://panel.example.com`. The default is the page's own origin. */
  baseUrl?: string | undefined;
  /** The default is `same-origin`. */
  credentials?: Credentials | undefined;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** How long an attempt may take, with its whole response, in milliseconds; the default is 30000. 0 is no limit. */
  timeoutMs?: number | undefined;
  /**
   * How many times a failed request is repeated; the default is 2. Only GET, PUT, DELETE, and
   * a POST with an idempotency key are.
   */
  retries?: number | undefined;
  /**
   * False if something on the way to the panel drops the header `Idempotency-Key`: then it is
   * not sent, and no POST is repeated.
   */
  idempotencyKeys?: boolean | undefined;
}

export interface Call {
  method: string;
  /** The path below the panel's URL, with the query. */
  path: string;
  body?: unknown;
  headers?: Record<string, string> | undefined;
}

export interface Answer {
  response: Response;
  data: unknown;
}

/** The longest Retry-After that a request waits for; a longer one is the caller's to wait for. */
const longestPauseMs = 60_000;

/** Waits, and rejects with the signal's reason when it is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, ms);
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end, { once: true });
  });
}

/** Exponential back-off with full jitter: between 0 and 500 ms, 1 s, 2 s and so on up to 10 s. */
export function backoff(attempt: number, baseMs = 500): number {
  return Math.random() * Math.min(10_000, baseMs * 2 ** attempt);
}

/** Writes a query: a list as a parameter for each value, and nothing for what is undefined or null. */
export function queryOf(values: object | undefined): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values ?? {}))
    for (const one of Array.isArray(value) ? value : [value]) if (one != null) query.append(name, String(one));
  const text = query.toString();
  return text && `?${text}`;
}

/** A key of 128 random bits. `crypto.randomUUID` is missing on pages without TLS. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The seconds of a Retry-After header, which may be a date (RFC 9110 section 10.2.3). */
function retryAfterOf(headers: Headers): number | undefined {
  const value = headers.get('retry-after')?.trim();
  if (!value) return undefined;
  if (/^\d+$/.test(value)) return Number(value);
  // The panel's clock, as far as it can be seen, counts for both times.
  const seconds = (Date.parse(value) - (Date.parse(headers.get('date') ?? '') || Date.now())) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, Math.ceil(seconds));
}

function isProblem(body: unknown): body is Problem {
  const problem = body as Partial<Problem> | null;
  return typeof problem?.error === 'string' && typeof problem.message === 'string';
}

function parse(response: Response, text: string): unknown {
  if (!text && response.ok) return undefined;
  let body: unknown;
  try {
    body = JSON.parse(text);
    if (response.ok) return body;
  } catch {
    // The response is described below.
  }
  const { status, headers } = response;
  const retryAfter = retryAfterOf(headers);
  if (isProblem(body)) throw new TunnelError(body, status, retryAfter, headers.get('etag') ?? undefined);
  const type = headers.get('content-type') ?? 'no content type';
  throw new ResponseError(`not a response of the panel: ${status}, ${type}, from ${response.url}`, status, text.slice(0, 1000), retryAfter);
}

/**
 * Reports whether a repetition may have another result. The panel says with Retry-After
 * that it may: `feature_disabled`, for instance, comes without.
 */
function isTransient(error: unknown): boolean {
  if (error instanceof TunnelError) {
    // The first request with an idempotency key may still be under way.
    return error.retryAfter !== undefined && ([429, 503].includes(error.status) || error.code === 'idempotency_in_progress');
  }
  if (error instanceof ResponseError) return [429, 502, 503, 504].includes(error.status);
  return error instanceof NetworkError || error instanceof TimeoutError;
}

export class Transport {
  readonly #options: ClientOptions;
  readonly base: string;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.base = (options.baseUrl ?? '').replace(/\/+$/, '');
  }

  /** Sends a request until it succeeds, fails for good, or has been repeated often enough. */
  async send(call: Call, options: RequestOptions): Promise<Answer> {
    const headers: Record<string, string> = { Accept: 'application/json', ...call.headers, ...options.headers };
    if (options.ifMatch !== undefined) headers['If-Match'] = options.ifMatch;
    if (options.idempotencyKey && this.#options.idempotencyKeys !== false) {
      headers['Idempotency-Key'] = options.idempotencyKey === true ? newKey() : options.idempotencyKey;
    }
    const repeatable = call.method === 'POST' ? 'Idempotency-Key' in headers : call.method !== 'PATCH';
    const retries = repeatable ? (options.retries ?? this.#options.retries ?? 2) : 0;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.exchange({ ...call, headers }, options, async (response) => ({
          response,
          data: parse(response, await response.text()),
        }));
      } catch (error) {
        if (attempt >= retries || options.signal?.aborted || !isTransient(error)) throw error;
        const seconds = (error as TunnelError).retryAfter ?? 0;
        if (seconds * 1000 > longestPauseMs) throw error;
        await sleep(seconds * 1000 + backoff(attempt), options.signal);
      }
    }
  }

  /**
   * Sends a request, a second time if the credential has been refused and there is another,
   * and has the response read.
   */
  async exchange<T>(call: Call, options: RequestOptions, read: (response: Response) => Promise<T>): Promise<T> {
    const { credentials = 'same-origin' } = this.#options;
    const ask = typeof credentials === 'function' ? credentials : undefined;
    const cookies = credentials === 'same-origin' || credentials === 'include' ? (credentials as RequestCredentials) : undefined;
    const token = ask ? await ask({ refused: undefined }) : cookies ? undefined : (credentials as string);
    try {
      return await this.#once(call, options, token, cookies, read);
    } catch (error) {
      if (!ask || !(error instanceof TunnelError) || error.status !== 401) throw error;
      const fresh = await ask({ refused: token });
      if (fresh === token) throw error;
      return this.#once(call, options, fresh, cookies, read);
    }
  }

  async #once<T>(
    call: Call,
    options: RequestOptions,
    token: string | undefined,
    cookies: RequestCredentials | undefined,
    read: (response: Response) => Promise<T>,
  ): Promise<T> {
    const { signal } = options;
    signal?.throwIfAborted();
    const { fetch: send = globalThis.fetch, timeoutMs: usual = 30_000 } = this.#options;
    const timeoutMs = options.timeoutMs ?? usual;
    const headers: Record<string, string> = { ...call.headers };
    if (token) headers['Authorization'] = `Bearer ${token}`;
    if (call.body !== undefined) headers['Content-Type'] = 'application/json';

    const controller = new AbortController();
    const abort = (): void => controller.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    const what = `${call.method} ${this.base}${call.path.split('?')[0]}`;
    const timer = timeoutMs > 0
      ? setTimeout(() => controller.abort(new TimeoutError(`${what}: no response within ${timeoutMs} ms`)), timeoutMs)
      : undefined;
    try {
      const response = await send(this.base + call.path, {
        method: call.method,
        headers,
        body: call.body === undefined ? null : JSON.stringify(call.body),
        credentials: cookies ?? 'omit',
        signal: controller.signal,
      });
      return await read(response);
    } catch (error) {
      if (controller.signal.aborted) throw controller.signal.reason;
      if (error instanceof TunnelError || error instanceof ResponseError) throw error;
      throw new NetworkError(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }
}

/** Returns the panel's error in a response that is no success; used where the body is not read otherwise. */
export async function check(response: Response): Promise<Response> {
  if (!response.ok) parse(response, await response.text());
  return response;
}
