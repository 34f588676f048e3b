import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createClient, type Allocation } from '../src/index.js';
import { startSite, type Site } from './browser/site.js';
import { realPanel } from './realpanel.js';

const panel = realPanel();
const client = createClient({ baseUrl: panel.url, credentials: panel.token });
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'];

let site: Site;
let browser: BrowserContext;
let profile: string;
let deviceId: string;

beforeAll(async () => {
  site = await startSite(panel);
  profile = mkdtempSync(join(tmpdir(), 'eclitunnel-chromium-'));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: flags,
  });
  await browser.addCookies([{ name: 'session', value: panel.token, url: site.url }]);
  ({ device: { id: deviceId } } = await client.devices.create({ name: 'behind-the-page', kind: 'client' }));
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await site?.close();
  if (deviceId) await client.devices.delete(deviceId);
  rmSync(profile, { recursive: true, force: true });
});

async function open(): Promise<Page> {
  const page = await browser.newPage();
  await page.goto(site.url);
  return page;
}

/** Opens a port, which the page learns of by an event alone. */
async function openPort(name: string): Promise<Allocation> {
  const created = await client.allocations.create({ deviceId, protocol: 'tcp', localPort: 25565, name });
  const [allocation] = created.allocations;
  if (!allocation) throw new Error('no allocation');
  return allocation;
}

async function live(page: Page): Promise<void> {
  await page.locator('#live').filter({ hasText: /^live$/ }).waitFor();
}

/** Returns whether a page leads: the browser lends the lock to one of its clients. */
async function leads(page: Page): Promise<boolean> {
  return page.evaluate(async () => {
    const { held, pending } = await navigator.locks.query();
    // A page asks under its own client ID, which it learns from a lock of its own.
    const own = `own ${Math.random()}`;
    const id = await navigator.locks.request(own, async () =>
      (await navigator.locks.query()).held?.find(({ name }) => name === own)?.clientId);
    return Boolean(pending && held?.some(({ name, clientId }) => name?.startsWith('eclitunnel') && clientId === id));
  });
}

test('eight tabs on HTTP/1.1 are live by one stream; the next leader goes on without a loss', async () => {
  const tabs: Page[] = [];
  // Without sharing, the seventh tab would wait for ever: a browser has six connections to a host.
  for (let i = 0; i < 8; i++) tabs.push(await open());
  await Promise.all(tabs.map(live));
  await Promise.all(tabs.map((tab) => tab.locator('#devices', { hasText: 'behind-the-page' }).waitFor()));
  expect(site.open.size).toBe(1);
  expect(site.resumed).toHaveLength(1);

  const names: string[] = [];
  const openNext = async (): Promise<void> => {
    names.push(`port-${names.length}`);
    await openPort(names.at(-1) ?? '');
  };
  await openNext();
  await Promise.all(tabs.map((tab) => tab.locator('#port-0').waitFor()));

  // The leader closes, three times, while ports are opened.
  for (let round = 1; round <= 3; round++) {
    const leading = await Promise.all(tabs.map(leads));
    expect(leading.filter(Boolean)).toHaveLength(1);
    const [leader] = tabs.splice(leading.indexOf(true), 1);
    const closing = leader?.close();
    await openNext();
    await closing;
    await openNext();
    await Promise.all(tabs.map((tab) => tab.locator(`#${names.at(-1)}`).waitFor()));
    await expect.poll(() => site.open.size).toBe(1);
    expect(site.resumed).toHaveLength(1 + round);
    expect(site.resumed.at(-1)).toBeTypeOf('string');
  }
  for (const tab of tabs) {
    // Each event once and in order, and nothing has been read again to make up for one.
    expect(await tab.evaluate(() => window.told)).toEqual(names);
    await live(tab);
  }
  await Promise.all(tabs.map((tab) => tab.close()));
  await expect.poll(() => site.open.size).toBe(0);
}, 90_000);

test('a page shows that the stream is lost, since when, and that it is back', async () => {
  const tab = await open();
  await live(tab);
  const asOf = Number(await tab.locator('#live').getAttribute('data-as-of'));
  expect(Math.abs(Date.now() - asOf)).toBeLessThan(60_000);
  await browser.setOffline(true);
  for (const response of site.open) response.destroy();
  await tab.locator('#live', { hasText: 'not live' }).waitFor();
  expect(Number(await tab.locator('#live').getAttribute('data-since'))).toBeGreaterThanOrEqual(asOf);
  const missed = await openPort('while-away');
  await browser.setOffline(false);
  await live(tab);
  await tab.locator('#while-away').waitFor();

  // A change from the page itself.
  await tab.locator('#while-away button').click();
  await tab.locator('#while-away').waitFor({ state: 'detached' });
  await expect(client.allocations.get(missed.id)).rejects.toMatchObject({ code: 'not_found' });
  await tab.close();
}, 60_000);
