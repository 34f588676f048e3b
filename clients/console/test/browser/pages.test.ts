// Every page, in both themes, languages and widths: nothing that axe finds, nothing wider
// than the window, and nothing that a tenant has named runs as markup.
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { checkAccess, go, picture, pictures, shown, Visitor, type Look } from './pages.js';
import { makeHome, Panel, Player, Started, startAgent, startDevice, startGame } from './panel.js';

const started = new Started();
let panel: Panel;
let paths: Record<string, string>;

/** A name that would run if a page took it for markup; not in pictures. */
const markup = pictures ? 'factory' : '<img src=x onerror=alert(1)>';

beforeAll(async () => {
  panel = await Panel.start(started, '16100-16199');
  const client = await panel.as();
  const { device, token } = await client.devices.create({ name: 'home-server', kind: 'client' });
  await client.devices.create({ name: 'attic', kind: 'client' });
  const agent = startDevice(started, panel, token);
  const localPort = await startGame(started);
  const { id, port } = await client.allocations.create({ deviceId: device.id, protocol: 'tcp', localPort, name: 'survival' });
  await client.allocations.create({ deviceId: device.id, protocol: 'udp', localPort: 34197, name: markup });
  await agent.says(/ready +tcp/);
  const player = new Player(started, port);
  await player.play(5_000_000);
  // A tunnel server reports every ten seconds.
  if (pictures) await vi.waitFor(async () => expect((await client.usage.get()).series).not.toEqual([]), { timeout: 30_000, interval: 500 });
  const organisation = await client.organisations.create({ name: markup });
  await client.organisations.invite(organisation.id, { email: 'grace@example.com', role: 'member' });
  await client.users.create({ email: 'ada@example.com' });
  await client.keys.create({ name: markup, scopes: ['read'] });
  await client.webhooks.create({ name: markup, url: 'http://127.0.0.1:9/hook', events: ['device.offline'] });
  const [server] = await client.devices.list({ kind: 'server' });
  paths = {
    overview: '/',
    start: '/start',
    'start-port': `/start?device=${device.id}`,
    approve: '/device',
    devices: '/devices',
    device: `/devices/${device.id}`,
    'tunnel-server': `/devices/${server?.id}`,
    ports: '/allocations',
    'port-new': '/allocations/new',
    port: `/allocations/${id}`,
    'port-players': `/allocations/${id}/players`,
    'port-traffic': `/allocations/${id}/traffic`,
    'port-rules': `/allocations/${id}/rules`,
    traffic: '/traffic',
    organisations: '/organisations',
    organisation: `/organisations/${organisation.id}`,
    'organisation-invitations': `/organisations/${organisation.id}/invitations`,
    'organisation-members': `/organisations/${organisation.id}/members`,
    'organisation-traffic': `/organisations/${organisation.id}/traffic`,
    'organisation-rules': `/organisations/${organisation.id}/rules`,
    'organisation-keys': `/organisations/${organisation.id}/keys`,
    'organisation-webhooks': `/organisations/${organisation.id}/webhooks`,
    'organisation-audit': `/organisations/${organisation.id}/audit`,
    account: '/account',
    sessions: '/account/sessions',
    keys: '/account/keys',
    webhooks: '/account/webhooks',
    limits: '/account/limits',
    'site-servers': '/site/servers',
    'site-users': '/site/users',
    'site-organisations': '/site/organisations',
    'site-settings': '/site/settings',
    'site-keys': '/site/keys',
    'site-audit': '/site/audit',
    'site-versions': '/site/versions',
    'site-webhooks': '/site/webhooks',
    nothing: '/devices/nothing/here',
  };
});
afterAll(() => started.stop());

/** Pages of which the documents have no picture: others look the same, or show nothing of their own. */
const unpictured = ['start-port', 'nothing', 'tunnel-server'];

/** Pages of which the documents have a picture on a phone. */
const phone = ['overview', 'ports', 'port-players'];

const looks: Look[] = [
  { width: 1440, theme: 'light', language: 'en' },
  { width: 320, theme: 'light', language: 'de' },
];

test.each(looks)('every page is accessible, $width px wide, in $language', async (look) => {
  const visitor = await Visitor.open(started, panel, look);
  // The page of a device or port that does not exist gets that answer of the panel.
  visitor.forgiven.push(/404.*\/api\/tunnel\/devices\/nothing/);
  const outside = await visitor.tab('/login');
  await checkAccess(outside, 'sign-in');
  await picture(outside, look.width === 320 ? 'phone-sign-in' : 'sign-in');
  for (const path of ['/password', '/invitation', '/login-failed?reason=email-taken']) {
    await go(outside, path);
    await checkAccess(outside, path);
  }
  await outside.close();

  const page = await visitor.signIn();
  page.on('dialog', () => visitor.fault('a name of a tenant has run as markup'));
  for (const [name, path] of Object.entries(paths)) {
    await go(page, path);
    await checkAccess(page, name);
    expect(await page.getByRole('heading', { name: /^(Nothing here|Hier ist nichts)$/ }).count(), `whether ${name} is no page`).toBe(name === 'nothing' ? 1 : 0);
    expect(await page.getByText(/undefined|\[object|NaN/).count(), `${name} shows a value that is none`).toBe(0);
    if (look.width === 320 ? phone.includes(name) : !unpictured.includes(name)) await picture(page, look.width === 320 ? `phone-${name}` : name);
  }
  await visitor.leave();
});

test('a terminal logs in with a code, and a check says whether players can join', async () => {
  const visitor = await Visitor.open(started, panel);
  const terminal = startAgent(started, makeHome(started), ['login', '--panel', panel.url]);
  const code = (await terminal.says(/\b[2-9]{4}-[A-Z]{4}\b/))[0];
  const page = await visitor.signIn('/device');
  await page.getByLabel(/^Code/).fill(code.toLowerCase());
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('heading', { name: 'A terminal wants to act as you' }).waitFor();
  await checkAccess(page, 'login');
  await page.getByRole('button', { name: 'Let it act as me' }).click();
  await page.getByRole('heading', { name: / is logged in$/ }).waitFor();
  await terminal.exited;
  expect(terminal.process.exitCode, terminal.output).toBe(0);
  await page.getByRole('link', { name: 'To your API keys' }).click();
  await page.getByRole('cell', { name: /^eclitunnel/ }).first().waitFor();

  await go(page, paths['port'] ?? '');
  await page.getByRole('button', { name: 'Check', exact: true }).click();
  // The game sends back what it gets, which no game does that the check knows.
  await page.getByText('Players get through to the game’s port').waitFor();
  await page.getByText('Every step').click();
  await checkAccess(page, 'check');
  await visitor.leave();
});

test('the first page loads at most 150 kB of JavaScript, and quickly', async () => {
  const visitor = await Visitor.open(started, panel);
  const first = await visitor.signIn();
  await first.close();
  let bytes = 0;
  const read: Promise<void>[] = [];
  visitor.context.on('response', (response) => {
    if (!response.url().endsWith('.js')) return;
    read.push(response.body().then((body) => void (bytes += gzipSync(body, { level: 9 }).length)));
  });
  const page = await visitor.context.newPage();
  const begun = Date.now();
  await page.goto('/');
  await page.locator('#page h1').waitFor();
  const ms = Date.now() - begun;
  await shown(page);
  await Promise.all(read);
  console.log(`first page: ${(bytes / 1000).toFixed(1)} kB of JavaScript, shown after ${ms} ms`);
  expect(bytes).toBeLessThanOrEqual(150_000);
  // A second on a quiet machine of two cores; a machine that runs tests is not quiet.
  expect(ms).toBeLessThan(4000);
  await visitor.leave();
});
