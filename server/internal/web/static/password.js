import { explain, unreachable } from './problem.js';

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

const messages = { not_found: 'This link was used or has expired. Ask an admin for a new one.' };

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
    return unreachable;
  }
  if (response.ok) return null;
  return explain(response, await response.json().catch(() => null), messages);
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
