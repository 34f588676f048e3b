import type { paths } from './generated/contract.js';
import type { resources } from './resources.js';

/** Options of one request. */
export interface RequestOptions {
  /** Ends the request, and the wait before a repetition; the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
  /** In place of the client's `timeoutMs`. */
  timeoutMs?: number | undefined;
  /** In place of the client's `retries`. */
  retries?: number | undefined;
  /**
   * Changes the resource only if it still has this ETag; otherwise the request fails with
   * `precondition_failed`. See {@link Result.withResponse}.
   */
  ifMatch?: string | undefined;
  /**
   * Of a POST: the panel carries out requests with the same key once, so the request may
   * be repeated. `true` makes a new key for this call.
   */
  idempotencyKey?: string | true | undefined;
  /** Of a list: the page at {@link FullResult.next} of an earlier result; the query is not used then. */
  page?: string | undefined;
  /** More header fields. */
  headers?: Record<string, string> | undefined;
}

/** A result, and what its response says besides. */
export interface FullResult<T> {
  data: T;
  /** The version of the resource, for `ifMatch`; undefined if it has none. */
  etag: string | undefined;
  /** The ID of the request in the panel's log. */
  requestId: string | undefined;
  /** Where the next page is; undefined on the last one. */
  next: string | undefined;
  response: Response;
}

/** The promise of a result. */
export interface Result<T> extends Promise<T> {
  /** Resolves with the response's ETag, request ID and next page as well. */
  withResponse(): Promise<FullResult<T>>;
}

type Lower = { GET: 'get'; POST: 'post'; PUT: 'put'; PATCH: 'patch'; DELETE: 'delete'; EACH: 'get' };

/** The parts of an entry of {@link resources}. */
type Parsed<E extends string> = E extends `${infer M extends keyof Lower} ${infer Rest}`
  ? Rest extends `${infer P} ${infer A}`
    ? { method: M; path: P; argument: A }
    : { method: M; path: Rest; argument: never }
  : never;

type Operation<E extends string> =
  Parsed<E> extends { method: infer M extends keyof Lower; path: infer P extends keyof paths } ? paths[P][Lower[M]] : never;

type ContentOf<R> = R extends { content: { 'application/json': infer T } } ? T : R extends { content?: never } ? undefined : never;

/** The successful response of an operation. */
type Success<O> = O extends { responses: infer R }
  ? { [S in keyof R]: S extends 200 | 201 | 202 | 204 | 207 ? ContentOf<R[S]> : never }[keyof R]
  : never;

type Body<O> = O extends { requestBody: { content: { 'application/json': infer T } } }
  ? T
  : O extends { requestBody?: { content: { 'application/json': infer T } } }
    ? T | undefined
    : never;

type Query<O> = O extends { parameters: { query: infer Q } } ? Q : O extends { parameters: { query?: infer Q } } ? Q : never;

/** The values of the names in braces in a path, in order. */
type PathArguments<P extends string, V> = P extends `${string}{${infer N}}${infer Rest}`
  ? [V extends { [K in N]: infer T } ? T : never, ...PathArguments<Rest, V>]
  : [];

type PathValues<O> = O extends { parameters: { path: infer V } } ? V : never;

/** The last argument before the options: the body, or the query, which may be left out if nothing in it is required. */
type Argument<O, A> = [A] extends [never]
  ? []
  : A extends 'body'
    ? undefined extends Body<O>
      ? [body?: Body<O>]
      : [body: Body<O>]
    : O extends { parameters: { query: unknown } }
      ? [query: Query<O>]
      : [query?: Query<O> | undefined];

type Arguments<E extends string> = [
  ...PathArguments<Parsed<E>['path'], PathValues<Operation<E>>>,
  ...Argument<Operation<E>, Parsed<E>['argument']>,
];

type Item<T> = T extends readonly (infer I)[] ? I : never;

type Method<E extends string> =
  Parsed<E>['method'] extends 'EACH'
    ? (...args: [...Arguments<E>, options?: RequestOptions | undefined]) => AsyncIterableIterator<Item<Success<Operation<E>>>>
    : (...args: [...Arguments<E>, options?: RequestOptions | undefined]) => Result<Success<Operation<E>>>;

type Resources = typeof resources;

/** The methods of a client, by resource. */
export type Methods = {
  readonly [R in keyof Resources]: {
    readonly [N in keyof Resources[R]]: Resources[R][N] extends string ? Method<Resources[R][N]> : never;
  };
};
