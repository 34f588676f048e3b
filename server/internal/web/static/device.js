import { call } from './api.js';
import { begin, byId, Page, showProblem } from './page.js';

let pending = null; // What the person decides about.

/** Whether a code is of a terminal that logs in: that of a device has its letters first. */
const isLogin = (code) => /^[2-9]{4}[A-Z]{4}$/i.test(code.replace(/[\s-]/g, ''));

const loginMessages = {
  not_found: 'No terminal is waiting with this code. Compare it with what the terminal shows.',
  login_expired: 'This code has expired. Run the command in the terminal again and enter the new code.',
  conflict: 'This login was approved already, or you have 50 API keys.',
};

const messages = {
  not_found: 'No device is waiting with this code. Compare it with what the device shows.',
  enrollment_expired: 'This code has expired. Start the enrollment on the device again and enter the new code.',
  already_approved: 'This device is already approved. There is nothing left to do.',
  forbidden: 'This needs an admin of the panel. Log in with an admin’s account.',
  feature_disabled: 'Tunnels are switched off in this panel’s settings.',
};

const page = new Page({
  steps: ['find', 'decide', 'approved', 'refused', 'login-decide', 'login-approved', 'login-refused'],
  welcome(user) {
    byId('who').textContent = user.email;
    const code = byId('code');
    this.show(byId('find'), code.value ? byId('find').querySelector('button') : code);
  },
  address() {
    const code = byId('code').value.trim();
    return location.pathname + (code ? `?${new URLSearchParams({ code })}` : '');
  },
});

function askForAnother() {
  byId('code').value = '';
  showProblem(null);
  page.show(byId('find'), byId('code'));
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
  page.show(byId('decide'), byId('decide-title'));
}

/** Shows which terminal wants to act as the person. */
function askForLogin() {
  for (const [id, text] of Object.entries({
    code: pending.userCode,
    client: pending.client,
    host: pending.host ?? 'not known',
    platform: pending.platform ?? 'not known',
    address: pending.address ?? 'not known',
    since: new Date(pending.createdAt).toLocaleString(),
    scopes: pending.scopes.join(', '),
  })) byId(`asking-${id}`).textContent = text;
  byId('login-elsewhere').hidden = pending.sameNetwork;
  page.show(byId('login-decide'), byId('login-decide-title'));
}

page.onSubmit('find', async () => {
  const query = new URLSearchParams({ userCode: byId('code').value.trim() });
  if (isLogin(query.get('userCode'))) {
    pending = await call('GET', `/api/auth/device?${query}`, null, loginMessages);
    askForLogin();
    return;
  }
  pending = await call('GET', `/api/tunnel/device/pending?${query}`, null, messages);
  askForDecision();
});

page.onClick('approve', async () => {
  const { device } = await call('POST', '/api/tunnel/device/approve', { userCode: pending.userCode }, messages);
  byId('device-name').textContent = device.name;
  byId('device-kind').textContent = kind(device);
  byId('device-id').textContent = device.id;
  const host = device.server?.publicHost;
  byId('device-host').textContent = device.server?.publicHostGuessed ? `${host} (guessed from the address from which it called)` : host;
  byId('device-host').hidden = byId('device-host-label').hidden = !host;
  byId('device-warning').textContent = device.server?.publicHostWarning;
  byId('device-warning').hidden = !device.server?.publicHostWarning;
  page.show(byId('approved'), byId('approved-title'));
});

page.onClick('refuse', async () => {
  await call('POST', '/api/tunnel/device/deny', { userCode: pending.userCode }, messages);
  page.show(byId('refused'), byId('refused-title'));
});

page.onClick('login-approve', async () => {
  const key = await call('POST', '/api/auth/device/approve', { userCode: pending.userCode }, loginMessages);
  byId('login-name').textContent = key.name;
  byId('login-scopes').textContent = key.scopes.join(', ');
  byId('login-expires').textContent = new Date(key.expiresAt).toLocaleString();
  page.show(byId('login-approved'), byId('login-approved-title'));
});

page.onClick('login-refuse', async () => {
  await call('POST', '/api/auth/device/deny', { userCode: pending.userCode }, loginMessages);
  page.show(byId('login-refused'), byId('login-refused-title'));
});

for (const id of ['login-another', 'login-next', 'login-back', 'another', 'next', 'back']) byId(id).addEventListener('click', askForAnother);

// A code in the address fills in the field, and does nothing else.
byId('code').value = new URLSearchParams(location.search).get('code') ?? '';
await begin(() => page.start());
