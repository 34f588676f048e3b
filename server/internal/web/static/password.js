import { call, Problem } from './api.js';
import { begin, byId, showProblem, takeFragment, wholeLink } from './page.js';

const token = takeFragment();
const messages = { not_found: 'This link was used or has expired. Ask an admin for a new one.' };

async function setPassword() {
  const password = byId('password').value;
  if (password !== byId('again').value) throw new Problem('differ', 'The two passwords differ.');
  await call('POST', '/api/auth/set-password', { token, password }, messages);
  byId('form').hidden = true;
  byId('done').hidden = false;
  byId('done').focus();
}

byId('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = byId('form').querySelector('button');
  if (button.disabled) return;
  button.disabled = true;
  showProblem(null);
  await begin(setPassword);
  button.disabled = false;
});

if (token) {
  byId('form').hidden = false;
  byId('password').focus();
} else {
  showProblem(new Problem('no_token', wholeLink));
}
