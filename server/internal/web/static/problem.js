/**
 * Returns the message for a failed response of the API, whose decoded body is answer, or
 * null if it had none. Own has the page's messages by error code.
 */
export function explain(response, answer, own) {
  const seconds = Number(response.headers.get('Retry-After'));
  if (own[answer?.error]) return own[answer.error];
  switch (answer?.error) {
    case 'rate_limited':
      return `Too many attempts. Try again in ${seconds > 0 ? `${seconds} seconds` : 'a while'}.`;
    case 'unavailable':
      return 'The panel cannot reach its database. Try again in a few seconds.';
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

export const unreachable = 'The panel cannot be reached. Check your network and try again.';
