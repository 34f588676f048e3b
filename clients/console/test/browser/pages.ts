// Browsers on the console that notice what must not happen: errors in the console, requests
// to other origins, violations of the page's policy, and what axe finds.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { expect, onTestFailed } from 'vitest';
import { report } from './failure.js';
import type { Panel, Started } from './panel.js';

const axePath = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

/** Where screenshots for the documents go; only when they are asked for. */
const screenshots = process.env['ECLITUNNEL_SCREENSHOTS'] ? resolve(import.meta.dirname, '../../../../docs/screenshots') : undefined;

/** Whether pictures for the documents are asked for. */
export const pictures = screenshots !== undefined;

export interface Look {
  width?: number;
  theme?: 'light' | 'dark';
  language?: 'en' | 'de';
}

/**
 * What Chromium says of requests that are refused as they should be: before anybody is
 * signed in, and while no machine has asked yet with the tag of a page.
 */
const expected = [/401.*\/api\/auth\/session/, /404.*\/api\/tunnel\/device\/pending\?tag=/];

let browser: Promise<Browser> | undefined;

/** Starts Chromium once, and ends it with what was started. */
function launch(started: Started): Promise<Browser> {
  browser ??= chromium
    .launch({
      executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
    })
    .then((launched) => {
      started.add(async () => {
        browser = undefined;
        await launched.close();
      });
      return launched;
    });
  return browser;
}

/** A person at a browser of their own, with one cookie jar and as many tabs as they open. */
export class Visitor {
  readonly faults: string[] = [];
  /** Patterns of console errors that a test provokes. */
  readonly forgiven: RegExp[] = [...expected];

  private constructor(
    readonly panel: Panel,
    readonly context: BrowserContext,
  ) {}

  static async open(started: Started, panel: Panel, { width = 1440, theme = 'light', language = 'en' }: Look = {}): Promise<Visitor> {
    const context = await (await launch(started)).newContext({
      baseURL: panel.url,
      viewport: { width, height: width < 600 ? 740 : 900 },
      colorScheme: theme,
      locale: language === 'de' ? 'de-DE' : 'en-GB',
      reducedMotion: 'reduce',
    });
    const visitor = new Visitor(panel, context);
    context.setDefaultTimeout(20_000);
    await context.exposeFunction('reportFault', (fault: string) => visitor.fault(fault));
    await context.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
        void (window as unknown as { reportFault(text: string): void }).reportFault(`policy: ${violatedDirective} ${blockedURI}`);
      });
    });
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && url.protocol !== 'blob:' && url.origin !== panel.url) visitor.fault(`another origin: ${url}`);
    });
    context.on('console', (message) => {
      if (message.type() === 'error') visitor.fault(`console: ${message.text()} ${message.location().url}`);
    });
    context.on('weberror', (error) => visitor.fault(`page: ${error.error().stack ?? error.error()}`));
    onTestFailed(async () => {
      for (const page of context.pages()) await report(page);
      await context.close();
    });
    return visitor;
  }

  fault(text: string): void {
    if (!this.forgiven.some((pattern) => pattern.test(text))) this.faults.push(text);
  }

  async tab(path: string): Promise<Page> {
    const page = await this.context.newPage();
    await page.goto(path);
    return page;
  }

  /** Signs in through the sign-in page, and returns the tab, at the address that it leads to. */
  async signIn(path = '/', email = this.panel.email, password = this.panel.password): Promise<Page> {
    const page = await this.tab(path);
    await page.getByLabel(/Email|E-Mail/).fill(email);
    await page.getByLabel(/Password|Passwort/).fill(password);
    await page.getByRole('button', { name: /Sign in|Anmelden/ }).click();
    await page.locator('#page h1').waitFor();
    return page;
  }

  /** Closes the browser, and fails if anything happened that must not. */
  async leave(): Promise<void> {
    // A test that fails shows what its pages had, so they stay open for it.
    if (this.faults.length === 0) await this.context.close();
    expect(this.faults).toEqual([]);
  }
}

/** Waits until the page shows what it has: a heading, and nothing that loads. */
export async function shown(page: Page): Promise<void> {
  await page.locator('h1').first().waitFor();
  await expect.poll(() => page.locator('.loading').count(), { timeout: 20_000 }).toBe(0);
}

/** Leads the console to another of its pages, as a link does. */
export async function go(page: Page, path: string): Promise<void> {
  // The heading of the page before must be gone when the next one is waited for.
  await page.evaluate(
    (to) =>
      new Promise((done) => {
        history.pushState(null, '', to);
        requestAnimationFrame(() => requestAnimationFrame(done));
      }),
    path,
  );
  await shown(page);
}

/** Fails if axe finds anything, also in the other theme, or the page is wider than the window. */
export async function checkAccess(page: Page, name: string): Promise<void> {
  await shown(page);
  await page.evaluate(axeSource());
  const theme = await page.evaluate(() => (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
  const other = theme === 'dark' ? 'light' : 'dark';
  await findNothing(page, undefined, `${name}, ${theme}`);
  await page.emulateMedia({ colorScheme: other });
  // Only colours differ.
  await findNothing(page, ['color-contrast'], `${name}, ${other}`);
  await page.emulateMedia({ colorScheme: theme });
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth] as const);
  expect(wide, `width of ${name}`).toBeLessThanOrEqual(window);
}

interface Finding {
  id: string;
  nodes: { html: string }[];
}

async function findNothing(page: Page, rules: string[] | undefined, name: string): Promise<void> {
  const violations = await page.evaluate(
    async (rules) => (await (window as unknown as { axe: { run(options: object): Promise<{ violations: Finding[] }> } }).axe.run(rules ? { runOnly: rules } : {})).violations,
    rules,
  );
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
  expect(found, `axe: ${name}`).toEqual([]);
}

let axe: string | undefined;
/** The source of axe, for evaluation: a script element of it would break the page's policy. */
function axeSource(): string {
  axe ??= readFileSync(axePath, 'utf8');
  return axe;
}

/** Keeps pictures of the page in both themes for the documents, if pictures are asked for. */
export async function picture(page: Page, name: string): Promise<void> {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  await shown(page);
  for (const colorScheme of ['dark', 'light'] as const) {
    await page.emulateMedia({ colorScheme });
    // A chart is drawn anew in the next frame.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    writeFileSync(join(screenshots, `${name}-${colorScheme}.png`), await page.screenshot());
  }
}
