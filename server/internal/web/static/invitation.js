import { call, Problem } from './api.js';

const byId = (id) => document.getElementById(id);
const steps = ['login', 'accept', 'done'].map(byId);
const token = location.hash.slice(1);
// A second link in the same tab changes the fragment alone.
addEventListener('hashchange', () => location.reload());
// Out of the address bar and the history: the link works once, but until then it is a secret.
history.replaceState(null, '', location.pathname);

const roles = {
  member: ['a member', 'you will see its devices and ports'],
  admin: ['an admin', 'you will manage its devices, ports and members'],
  owner: ['an owner', 'it will be yours, with those who own it already'],
};
const messages = { not_found: 'This invitation was used, was revoked or has expired. Ask whoever sent it for a new one.' };

function showProblem(problem) {
  byId('problem').textContent = problem?.message ?? '';
  byId('problem').hidden = !problem;
}

/** Shows one step, or none, and moves the focus to an element in it. */
function show(step, focus) {
  byId('busy').hidden = true;
  for (const s of steps) s.hidden = s !== step;
  byId('account').hidden = !step || step === byId('login');
  focus?.focus();
}

function askToLogIn() {
  show(byId('login'), byId('email'));
}

function askToAccept(user) {
  byId('who').textContent = user.email;
  show(byId('accept'), byId('accept').querySelector('button'));
}

/** Runs an action with its button disabled, and shows an error. */
async function attempt(element, action) {
  const button = element.querySelector('button') ?? element;
  if (button.disabled) return;
  button.disabled = true;
  showProblem(null);
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.code === 'unauthorized' && element !== byId('login')) askToLogIn();
    showProblem(error);
  } finally {
    button.disabled = false;
  }
}

function onSubmit(form, action) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    attempt(form, action);
  });
}

onSubmit(byId('login'), async () => {
  const password = byId('password');
  const { user } = await call('POST', '/api/auth/login', { email: byId('email').value, password: password.value });
  password.value = '';
  askToAccept(user);
});

onSubmit(byId('accept'), async () => {
  const organisation = await call('POST', '/api/invitations/accept', { token }, messages);
  byId('what').hidden = true;
  byId('done').textContent = `You are ${roles[organisation.role][0]} of ${organisation.name} now. You can close this page.`;
  show(byId('done'), byId('done'));
});

byId('logout').addEventListener('click', () => attempt(byId('logout'), async () => {
  await call('POST', '/api/auth/logout');
  askToLogIn();
}));

async function start() {
  if (!token) throw new Problem('no_token', 'This page needs the whole link that you were given, with what follows the #.');
  const invitation = await call('POST', '/api/invitations/look-up', { token }, messages);
  byId('organisation').textContent = invitation.organisation;
  [byId('role').textContent, byId('may').textContent] = roles[invitation.role];
  byId('what').hidden = false;
  try {
    const { user } = await call('GET', '/api/auth/session');
    askToAccept(user);
  } catch (error) {
    askToLogIn();
    if (error.code !== 'unauthorized') throw error;
  }
}

try {
  await start();
} catch (error) {
  byId('busy').hidden = true;
  showProblem(error);
}
