const byId = (id) => document.getElementById(id);
const token = location.hash.slice(1);
// A second link in the same tab changes the fragment alone.
addEventListener('hashchange', () => location.reload());
// Out of the address bar and the history: the link works once, but until then it is a secret.
history.replaceState(null, '', location.pathname);

function showProblem(message) {
  byId('problem').textContent = message ?? '';
  byId('problem').hidden = !message;
}

function explain(response, answer) {
  const seconds = Number(response.headers.get('Retry-After'));
  switch (answer?.error) {
    case 'not_found':
      return 'This link was used or has expired. Ask an admin for a new one.';
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

async function setPassword() {
  const password = byId('password').value;
  if (password !== byId('again').value) return 'The two passwords differ.';
  let response;
  try {
    response = await fetch('/api/auth/set-password', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ token, password }),
    });
  } catch {
    return 'The panel cannot be reached. Check your network and try again.';
  }
  if (response.ok) return null;
  return explain(response, await response.json().catch(() => null));
}

byId('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = byId('form').querySelector('button');
  if (button.disabled) return;
  button.disabled = true;
  showProblem(null);
  const problem = await setPassword();
  button.disabled = false;
  showProblem(problem);
  if (problem) return;
  byId('form').hidden = true;
  byId('done').hidden = false;
  byId('done').focus();
});

if (token) {
  byId('form').hidden = false;
  byId('password').focus();
} else {
  showProblem('This page needs the whole link that you were given, with what follows the #.');
}
