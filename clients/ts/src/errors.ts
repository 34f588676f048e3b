import type { components } from './generated/contract.js';

/** The body of every error response of a panel. */
export type Problem = components['schemas']['Problem'];

/** The error codes that the panel of this version sends. */
export type ErrorCode = components['schemas']['ErrorCode'];

/** An error code: one of {@link ErrorCode}, or one that a newer panel has added. */
export type AnyErrorCode = ErrorCode | (string & Record<never, never>);

/** What the request was, and what is known of its response. */
export interface ErrorContext {
  method: string;
  url: string;
  status: number;
  requestId: string | undefined;
  retryAfter: number | undefined;
}

/** The panel refused the request, and says why. */
export class TunnelError extends Error {
  override readonly name = 'TunnelError';
  /** What went wrong, for programs. A newer panel may send codes that this SDK does not know. */
  readonly code: AnyErrorCode;
  /** The status of the response. */
  readonly status: number;
  /** The ID of the request in the panel's log. */
  readonly requestId: string;
  /** The invalid fields and parameters; empty if the request is not invalid. */
  readonly details: readonly components['schemas']['ErrorDetail'][];
  /** The limit that the request would exceed, with the code `quota_exceeded`. */
  readonly quota: components['schemas']['QuotaExcess'] | undefined;
  /** The number of seconds to wait before the next request, if the panel said so. */
  readonly retryAfter: number | undefined;
  /** The ETag that the response carries: with `precondition_failed`, the current one. */
  readonly etag: string | undefined;

  constructor(problem: Problem, status: number, retryAfter?: number, etag?: string) {
    super(problem.message);
    this.code = problem.error;
    this.status = status;
    this.requestId = problem.requestId;
    this.details = problem.details ?? [];
    this.quota = problem.quota;
    this.retryAfter = retryAfter;
    this.etag = etag;
  }
}

/** What is certain of an error with the code, beyond what {@link TunnelError} says. */
export type TunnelErrorOf<C extends AnyErrorCode> = TunnelError & { readonly code: C } & (C extends 'quota_exceeded'
    ? { readonly quota: components['schemas']['QuotaExcess'] }
    : unknown);

/** Reports whether an error is the panel's, with this code. */
export function isCode<const C extends AnyErrorCode>(error: unknown, code: C): error is TunnelErrorOf<C> {
  return error instanceof TunnelError && error.code === code;
}

/** The response is not the panel's: an error page of a proxy, for instance, or of a login in front of it. */
export class ResponseError extends Error {
  override readonly name = 'ResponseError';
  constructor(
    message: string,
    /** The status of the response. */
    readonly status: number,
    /** The first characters of the body. */
    readonly body: string,
    /** The number of seconds to wait before the next request, if the response said so. */
    readonly retryAfter?: number,
  ) {
    super(message);
  }
}

/** The request got no response: no connection, or one that broke. `cause` is the reason of the runtime. */
export class NetworkError extends Error {
  override readonly name = 'NetworkError';
}

/** The response took longer than the time-out. */
export class TimeoutError extends Error {
  override readonly name = 'TimeoutError';
}
