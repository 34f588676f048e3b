import { call, Problem } from './api.js';

const byId = (id) => document.getElementById(id);
const steps = ['login', 'find', 'decide', 'approved', 'refused'].map(byId);
let pending = null; // What the person decides about.

const messages = {
  not_found: 'No device is waiting with this code. Compare it with what the device shows.',
  enrollment_expired: 'This code has expired. Start the enrollment on the device again and enter the new code.',
  already_approved: 'This device is already approved. There is nothing left to do.',
  forbidden: 'This needs an admin of the panel. Log in with an admin’s account.',
  feature_disabled: 'Tunnels are switched off in this panel’s settings.',
};

/** Shows one step and moves the focus to an element in it. */
function show(step, focus) {
  byId('busy').hidden = true;
  for (const s of steps) s.hidden = s !== step;
  byId('account').hidden = step === byId('login');
  focus?.focus();
}

function showProblem(problem) {
  const line = byId('problem');
  line.textContent = problem?.message ?? '';
  line.hidden = !problem;
}

/** Shows the ways to log in: a link for each identity provider, and the form of local accounts. */
async function askToLogIn() {
  const { localAccounts, providers } = await call('GET', '/api/auth/providers');
  const code = byId('code').value.trim();
  const page = location.pathname + (code ? `?${new URLSearchParams({ code })}` : '');
  byId('providers').replaceChildren(...providers.map(({ name, loginUrl }) => {
    const link = document.createElement('a');
    link.href = `${loginUrl}?${new URLSearchParams({ returnTo: page })}`;
    link.textContent = `Log in with ${name}`;
    const item = document.createElement('li');
    item.append(link);
    return item;
  }));
  byId('providers').hidden = providers.length === 0;
  byId('credentials').hidden = !localAccounts;
  show(byId('login'), localAccounts ? byId('email') : byId('providers').querySelector('a'));
}

/** Is askToLogIn that shows why the ways to log in are not known. */
async function tryToLogIn() {
  try {
    await askToLogIn();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    show(byId('login'));
    showProblem(error);
  }
}

function askForCode(user) {
  byId('who').textContent = user.email;
  const code = byId('code');
  show(byId('find'), code.value ? byId('find').querySelector('button') : code);
}

function askForAnother() {
  byId('code').value = '';
  showProblem(null);
  show(byId('find'), byId('code'));
}

const kind = (device) => (device.kind === 'server' ? 'Tunnel server' : 'Tunnel client');

/** Shows what asks. Only a click on one of the buttons below it decides. */
function askForDecision() {
  const nobody = 'nobody yet: to you, if you approve it';
  const organisation = pending.organisationName && `the organisation ${pending.organisationName}`;
  for (const [id, text] of Object.entries({
    code: pending.userCode,
    name: pending.name,
    kind: kind(pending),
    platform: pending.platform ?? 'not known',
    agent: pending.agentVersion ?? 'not known',
    address: pending.address ?? 'not known',
    since: new Date(pending.createdAt).toLocaleString(),
    owner: pending.ownerEmail ?? organisation ?? nobody,
  })) byId(`pending-${id}`).textContent = text;
  byId('elsewhere').hidden = pending.sameNetwork;
  show(byId('decide'), byId('decide-title'));
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
    if (error.code === 'unauthorized' && element !== byId('credentials')) await tryToLogIn();
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

onSubmit(byId('credentials'), async () => {
  const password = byId('password');
  const { user } = await call('POST', '/api/auth/login', { email: byId('email').value, password: password.value });
  password.value = '';
  askForCode(user);
});

onSubmit(byId('find'), async () => {
  const query = new URLSearchParams({ userCode: byId('code').value.trim() });
  pending = await call('GET', `/api/tunnel/device/pending?${query}`, null, messages);
  askForDecision();
});

const onClick = (id, action) => byId(id).addEventListener('click', () => attempt(byId(id), action));

onClick('approve', async () => {
  const { device } = await call('POST', '/api/tunnel/device/approve', { userCode: pending.userCode }, messages);
  byId('device-name').textContent = device.name;
  byId('device-kind').textContent = kind(device);
  byId('device-id').textContent = device.id;
  const host = device.server?.publicHost;
  byId('device-host').textContent = device.server?.publicHostGuessed ? `${host} (guessed from the address from which it called)` : host;
  byId('device-host').hidden = byId('device-host-label').hidden = !host;
  byId('device-warning').textContent = device.server?.publicHostWarning;
  byId('device-warning').hidden = !device.server?.publicHostWarning;
  show(byId('approved'), byId('approved-title'));
});

onClick('refuse', async () => {
  await call('POST', '/api/tunnel/device/deny', { userCode: pending.userCode }, messages);
  show(byId('refused'), byId('refused-title'));
});

for (const id of ['another', 'next', 'back']) byId(id).addEventListener('click', askForAnother);

onClick('logout', async () => {
  await call('POST', '/api/auth/logout');
  await tryToLogIn();
});

// A code in the address fills in the field, and does nothing else.
byId('code').value = new URLSearchParams(location.search).get('code') ?? '';
try {
  const { user } = await call('GET', '/api/auth/session');
  askForCode(user);
} catch (error) {
  await tryToLogIn();
  if (error.code !== 'unauthorized') showProblem(error);
}
