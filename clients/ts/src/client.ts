import { subscribe, type EventStream } from './events.js';
import { resources } from './resources.js';
import { queryOf, Transport, type Answer, type Call, type ClientOptions } from './transport.js';
import type { FullResult, Methods, RequestOptions, Result } from './types.js';

/** A client of a panel: the operations of its API by resource, and its event stream. */
export interface TunnelClient extends Methods {
  readonly events: EventStream;
  /** The URL of the panel without a slash at its end; empty for the page's own origin. */
  readonly baseUrl: string;
}

/** The path of the next page (RFC 8288), relative to the panel's URL. */
function nextOf(response: Response): string | undefined {
  return /<([^>]*)>[^,]*;\s*rel="?next"?/i.exec(response.headers.get('link') ?? '')?.[1];
}

/** Returns a path if it is one below the panel's URL: elsewhere this panel's credential must not go. */
function atPanel(path: string): string {
  if (/^\/(?![/\\])/.test(path)) return path;
  throw new TypeError(`the page is not at the panel: ${path}`);
}

function full({ response, data }: Answer): FullResult<unknown> {
  const { headers } = response;
  return {
    data,
    etag: headers.get('etag') ?? undefined,
    requestId: headers.get('x-request-id') ?? undefined,
    next: nextOf(response),
    response,
  };
}

function result(answer: Promise<FullResult<unknown>>): Result<unknown> {
  const promise = answer.then(({ data }) => data) as Result<unknown>;
  promise.withResponse = () => {
    // The caller sees a failure by the other promise.
    promise.catch(() => undefined);
    return answer;
  };
  return promise;
}

/** A value of a path is one segment: not empty, and none that URLs resolve. */
function segment(value: unknown): string {
  const text = String(value ?? '');
  if (/^\.{0,2}$/.test(text)) throw new TypeError(`${JSON.stringify(text)} cannot be part of a path`);
  return encodeURIComponent(text);
}

/** Turns an entry of the table into a method. */
function method(transport: Transport, entry: string): (...args: unknown[]) => unknown {
  const [verb = '', template = '', kind] = entry.split(' ');
  const names = template.match(/{\w+}/g) ?? [];
  return (...args) => {
    const path = names.reduce((text, name, i) => text.replace(name, segment(args[i])), template);
    const argument = kind ? args[names.length] : undefined;
    const options = (args[names.length + (kind ? 1 : 0)] ?? {}) as RequestOptions;
    const call: Call = { method: verb, path };
    if (kind === 'query') call.path += queryOf(argument as object);
    else call.body = argument;
    const send = async (path: string): Promise<FullResult<unknown>> => transport.send({ ...call, path: atPanel(path) }, options).then(full);
    if (verb !== 'EACH') return result(send(options.page ?? call.path));
    call.method = 'GET';
    return (async function* () {
      for (let page: string | undefined = options.page ?? call.path; page; ) {
        const { data, next } = await send(page);
        yield* data as unknown[];
        page = next;
      }
    })();
  };
}

/** Makes a client of the panel at `baseUrl`. It holds no connection and needs no closing. */
export function createClient(options: ClientOptions = {}): TunnelClient {
  const transport = new Transport(options);
  const client: Record<string, unknown> = { baseUrl: transport.base };
  for (const [resource, entries] of Object.entries(resources)) {
    client[resource] = Object.fromEntries(Object.entries(entries).map(([name, entry]) => [name, method(transport, entry)]));
  }
  client['events'] = { subscribe: (options: object = {}) => subscribe(transport, options) };
  return client as unknown as TunnelClient;
}
