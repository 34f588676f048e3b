/** A failure with a message for the user. */
export class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Calls the API and returns the body, or null if there is none, or throws a Problem. Messages
 * are the page's own by error code.
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
    throw new Problem('unreachable', 'The panel cannot be reached. Check your network and try again.');
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Problem(answer?.error ?? 'unreadable', explain(response, answer, messages));
}

/**
 * Returns the message for a failed response, whose decoded body is answer, or null if it had
 * none.
 */
function explain(response, answer, own) {
  const seconds = Number(response.headers.get('Retry-After'));
  const again = `Try again in ${seconds > 0 ? `${seconds} seconds` : 'a while'}.`;
  if (own[answer?.error]) return own[answer.error];
  switch (answer?.error) {
    case 'rate_limited':
      return `Too many attempts. ${again}`;
    case 'unavailable':
      return `${answer.message} ${again}`;
    case 'invalid_request': {
      const details = (answer.details ?? []).map((d) => `${d.field}: ${d.message}`).join('; ');
      return details ? `${answer.message} ${details}.` : answer.message;
    }
    case undefined:
      return `The panel sent an unexpected response (status ${response.status}).`;
    default:
      return response.status >= 500 ? `${answer.message} Request id: ${answer.requestId}` : answer.message;
  }
}
