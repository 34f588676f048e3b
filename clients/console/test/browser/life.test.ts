// What people meet while a page stays open: restarts, other tabs, many ports, other rights.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createClient } from '@eclitunnel/sdk';
import { go, picture, shown, Visitor } from './pages.js';
import { Panel, Started, startDevice } from './panel.js';

const started = new Started();
let panel: Panel;

beforeAll(async () => {
  panel = await Panel.start(started, '20000-22999');
});
afterAll(() => started.stop());

/** Makes a user with a password. */
async function makeUser(email: string): Promise<{ id: number; password: string }> {
  const admin = await panel.as();
  const { id } = await admin.users.create({ email });
  const { url } = await admin.users.createPasswordLink(id);
  const password = `of ${email} alone`;
  await createClient({ baseUrl: panel.url }).auth.setPassword({ token: new URL(url ?? '').hash.slice(1), password });
  return { id, password };
}

test('an open page says that the panel is away, and goes on when it is back', async () => {
  const visitor = await Visitor.open(started, panel);
  visitor.forgiven.push(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|\b50[234]\b/);
  const page = await visitor.signIn('/devices');
  await page.getByText('Live', { exact: true }).waitFor();
  await page.evaluate(() => Object.assign(window, { sameDocument: true }));
  await panel.stop();
  await page.getByText(/^As of .*, reconnecting$/).waitFor();
  // What was read stays.
  await page.getByRole('table').waitFor();
  await panel.run();
  await page.getByText('Live', { exact: true }).waitFor();
  const client = await panel.as();
  await client.devices.create({ name: 'after-the-restart', kind: 'client' });
  await page.getByText('after-the-restart').waitFor();
  expect(await page.evaluate(() => 'sameDocument' in window)).toBe(true);
  await visitor.leave();
});

test('eight tabs share one stream, and each shows what happens', async () => {
  const visitor = await Visitor.open(started, panel);
  let streams = 0;
  visitor.context.on('request', (request) => {
    if (new URL(request.url()).pathname === '/api/events') streams++;
  });
  const tabs = [await visitor.signIn('/devices')];
  while (tabs.length < 8) tabs.push(await visitor.tab('/devices'));
  for (const tab of tabs) await tab.getByText('Live', { exact: true }).waitFor();
  await (await panel.as()).devices.create({ name: 'for-eight-tabs', kind: 'client' });
  for (const tab of tabs) await tab.getByText('for-eight-tabs').waitFor();
  expect(streams).toBe(1);
  await visitor.leave();
});

test('a thousand ports are listed, searched and paged within a second', async () => {
  const client = await panel.as();
  const { device, token } = await client.devices.create({ name: 'arcade', kind: 'client' });
  startDevice(started, panel, token);
  const open = async (i: number) => client.allocations.create({ deviceId: device.id, protocol: 'udp', localPort: 1000 + i, name: `cabinet-${i}` });
  for (let i = 0; i < 1000; i += 25) await Promise.all(Array.from({ length: 25 }, (_, k) => open(i + k)));

  const visitor = await Visitor.open(started, panel);
  const page = await visitor.signIn('/');
  const times: Record<string, number> = {};
  const time = async (name: string, act: () => Promise<unknown>): Promise<void> => {
    const begun = Date.now();
    await act();
    times[name] = Date.now() - begun;
  };
  await time('list', async () => {
    await page.getByRole('link', { name: 'Ports', exact: true }).click();
    await page.getByText('cabinet-999').first().waitFor();
  });
  await picture(page, 'many-ports');
  await time('next page', async () => {
    await page.getByRole('button', { name: 'Next page' }).click();
    await page.getByText('cabinet-940').first().waitFor();
  });
  await time('search', async () => {
    await page.getByRole('searchbox').fill('cabinet-77');
    await page.getByText('cabinet-777').first().waitFor();
    await page.getByText('cabinet-940').first().waitFor({ state: 'detached' });
  });
  expect(new URL(page.url()).searchParams.get('q')).toBe('cabinet-77');
  console.log(`of 1,000 ports, in ms: ${JSON.stringify(times)}`);
  // A second on a quiet machine of two cores; a machine that runs tests is not quiet.
  for (const [name, ms] of Object.entries(times)) expect(ms, name).toBeLessThan(4000);

  // All of a page at once.
  await page.getByLabel('Choose all on this page').check();
  await page.getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('heading', { name: 'Nothing found' }).waitFor();
  await visitor.leave();
});

test('members, admins of an organisation and admins of the site see what they may', async () => {
  const site = await panel.as();
  const [owner, member, stranger] = [await makeUser('owner@example.com'), await makeUser('member@example.com'), await makeUser('stranger@example.com')];
  await site.settings.update({ organisations: { creators: 'everyone' } });
  const client = await panel.as('owner@example.com', owner.password);
  const guild = await client.organisations.create({ name: 'guild' });
  const { url } = await client.organisations.invite(guild.id, { email: 'member@example.com', role: 'member' });
  await (await panel.as('member@example.com', member.password)).invitations.accept({ token: new URL(url).hash.slice(1) });
  const { device } = await site.devices.create({ name: 'guild-hall', kind: 'client', organisationId: guild.id });
  const { id } = await site.allocations.create({ deviceId: device.id, protocol: 'tcp', localPort: 25565, name: 'guild-game' });

  const rights = [
    { email: 'owner@example.com', password: owner.password, sees: true, changes: true, admin: false },
    { email: 'member@example.com', password: member.password, sees: true, changes: false, admin: false },
    { email: 'stranger@example.com', password: stranger.password, sees: false, changes: false, admin: false },
    { email: panel.email, password: panel.password, sees: true, changes: true, admin: true },
  ];
  for (const { email, password, sees, changes, admin } of rights) {
    const visitor = await Visitor.open(started, panel);
    // Chromium says of every refusal that it is one.
    visitor.forgiven.push(/\b40[34]\b.*\/api\//);
    const page = await visitor.signIn('/devices', email, password);
    await shown(page);
    expect(await page.getByRole('link', { name: 'Site', exact: true }).count(), email).toBe(admin ? 1 : 0);
    expect(await page.getByRole('link', { name: 'guild-hall', exact: true }).count(), email).toBe(sees ? 1 : 0);
    await go(page, `/allocations/${id}`);
    if (sees) await page.getByRole('heading', { name: 'guild-game', level: 1 }).waitFor();
    else await page.getByRole('heading', { name: 'No such port' }).waitFor();
    expect(await page.getByRole('button', { name: 'Pause' }).count(), email).toBe(changes ? 1 : 0);
    await go(page, '/site/users');
    await page.getByRole('heading', { name: admin ? 'Users' : 'Not for you' }).first().waitFor();
    await visitor.leave();
  }
});

test('a session that ends elsewhere leads to the sign-in page', async () => {
  const visitor = await Visitor.open(started, panel);
  visitor.forgiven.push(/401/);
  const page = await visitor.signIn('/devices');
  await page.getByText('Live', { exact: true }).waitFor();
  await (await panel.as()).account.endOtherSessions();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  expect(new URL(page.url()).searchParams.get('returnTo')).toBe('/devices');
  await visitor.leave();
});
