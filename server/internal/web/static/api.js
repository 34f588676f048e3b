import { explain, unreachable } from './problem.js';

/** A failure with a message for the user. */
export class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Calls the API and returns the body, or throws a Problem. Messages are the page's own by
 * error code.
 */
export async function call(method, path, body, messages = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body ? { 'Content-Type': 'application/json' } : {},
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Problem('unreachable', unreachable);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Problem(answer?.error ?? 'unreadable', explain(response, answer, messages));
}
