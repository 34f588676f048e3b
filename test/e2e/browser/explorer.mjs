// Opens the panel's API explorer in Chromium and uses it as a reader does. It prints
// what is wrong, one line each, and exits with 1 if there is any.
//
// usage: node explorer.mjs SETTINGS.json
//
// SETTINGS: {"browser": PROGRAM, "url", "email", "password", "key", "screenshots": DIR or "",
// "parameters": {NAME: VALUE}} where parameters are values in place of the contract's examples.
// Such a value is {PREFIX: VALUE} if it depends on how the path begins.
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const wrong = [];
const report = (text) => { wrong.push(text); console.log(text); };

// Operations whose answer to a reader's session is a refusal, and which. An operation
// with a parameter for which the settings have no value answers 404.
const refused = {
  connectControlChannel: [403], // For devices.
};

// Operations that lead a browser from page to page: nothing to try.
const pages = new Set(['beginProviderLogin', 'finishProviderLogin']);

const patience = 60_000; // The machine may be busy.
const browser = await chromium.launch({ executablePath: settings.browser, args: ['--no-sandbox', '--disable-gpu'] });

// browse returns a browser of its own, without cookies, that reaches the panel's origin only.
async function browse(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, reducedMotion: 'reduce', ...options });
  await context.route('**', async (route) => {
    const url = new URL(route.request().url());
    if (url.origin !== settings.url && url.protocol !== 'data:' && url.protocol !== 'blob:') {
      report(`it asks another origin: ${url}`);
      return route.abort();
    }
    if (url.pathname !== '/openapi.json') return route.continue();
    const response = await route.fetch();
    return route.fulfill({ response, json: withParameters(await response.json()) });
  });
  await context.addInitScript(() => addEventListener('securitypolicyviolation', (event) =>
    console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`)));
  context.setDefaultTimeout(patience);
  return context;
}

// What the explorer logs when the dialog of a request that goes on is closed: the first while
// it reads the answer, the second while it waits for one.
const cancellations = ['Error reading stream: The request has been cancelled', 'The request has been cancelled'];

// What moves, or lets shine through what is below it, takes most of a machine without a GPU.
const still = `*, ::before, ::after {
  animation: none !important; transition: none !important;
  backdrop-filter: none !important; filter: none !important; box-shadow: none !important;
}`;

// How many streams tryOut has closed, by page, whose ends the explorer has not logged.
const closedStreams = new WeakMap();

// open shows the explorer on a new page, of which the errors are reported: of the whole
// contract with the guides, or of some of its operations only.
async function open(context, some) {
  const page = await context.newPage();
  closedStreams.set(page, 0);
  page.on('pageerror', (error) => report(`error of the page: ${error.message}`));
  page.on('console', (message) => {
    const text = message.text();
    // The browser logs refusals of the panel, which are looked at below.
    if (message.type() !== 'error' || text.startsWith('Failed to load resource')) return;
    const closed = closedStreams.get(page);
    if (closed > 0 && cancellations.includes(text)) closedStreams.set(page, closed - 1);
    else report(`error on the console: ${text}`);
  });
  if (some) {
    await page.route('**/openapi.json', (route) => route.fulfill({ json: withParameters(contractOf(some)) }));
    await page.route('**/guides.json', (route) => route.fulfill({ json: [] }));
  }
  await visit(page);
  await page.addStyleTag({ content: still });
  return page;
}

// valueOf returns the value of a parameter on this panel, if the settings have one.
function valueOf(path, name) {
  const value = settings.parameters[name];
  if (typeof value !== 'object') return value;
  return Object.entries(value).find(([prefix]) => path.startsWith(prefix))?.[1];
}

// withParameters puts values of this panel in place of the contract's examples.
function withParameters(document) {
  const put = (parameter, path) => {
    parameter.example = valueOf(path, parameter.name) ?? parameter.example;
  };
  for (const [path, item] of Object.entries(document.paths)) {
    for (const part of [item, ...Object.values(item)]) {
      part.parameters = part.parameters?.map((parameter) => {
        const own = structuredClone(parameter.$ref ? document.components.parameters[parameter.$ref.split('/').pop()] : parameter);
        put(own, path);
        return own;
      });
    }
  }
  return document;
}

// contractOf returns the contract as if it had some of its operations only, among which the
// explorer takes less time to show the dialog of each and to leave it.
function contractOf(some) {
  const paths = {};
  for (const { path, method } of some) {
    const { parameters } = contract.paths[path];
    paths[path] = { ...(parameters && { parameters }), ...paths[path], [method]: contract.paths[path][method] };
  }
  const { schemas: all, ...components } = contract.components;
  const schemas = {};
  const take = (part) => {
    for (const [, name] of JSON.stringify(part).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (schemas[name]) continue;
      schemas[name] = all[name];
      take(all[name]);
    }
  };
  take([paths, components]);
  const tags = contract.tags.filter(({ name }) => some.some((operation) => operation.tags.includes(name)));
  return structuredClone({ ...contract, tags, paths, components: { ...components, schemas } });
}

const contract = await (await fetch(`${settings.url}/openapi.json`)).json();
const operations = Object.entries(contract.paths).flatMap(([path, item]) => Object.entries(item)
  .filter(([, operation]) => operation.operationId)
  .map(([method, operation]) => ({ path, method, ...operation,
    parameters: [...(item.parameters ?? []), ...(operation.parameters ?? [])]
      .map((parameter) => parameter.$ref ? contract.components.parameters[parameter.$ref.split('/').pop()] : parameter) })));
const slug = (text) => text.toLowerCase().replaceAll(' ', '-');
const anchor = ({ tags, method, path }) => `tag/${slug(tags[0])}/${method.toUpperCase()}${path}`;

async function visit(page) {
  await page.goto(`${settings.url}/openapi`);
  await page.locator('a[href^="#tag/"]').first().waitFor({ state: 'attached' });
}

// show opens what the side bar calls by an anchor.
async function show(page, id) {
  await page.evaluate((hash) => { location.hash = hash; }, `#${id}`);
  const section = page.locator(`[id="${id}"], [id$="/${id}"]`).first();
  await section.waitFor({ state: 'attached' });
  return section;
}

// tryOut sends an operation's request and returns the status that the panel answered
// with, or 0 if nothing was sent, and what the explorer shows: of a stream nothing.
// What the explorer refuses to send has no answer to wait for.
async function tryOut(page, operation, { sends = true } = {}) {
  const section = await show(page, anchor(operation));
  await section.locator('button.show-api-client-button').click();
  const dialog = page.locator('[role="dialog"]'); // To compute all roles of the page takes seconds.
  const sendButton = dialog.locator('button', { hasText: /^\s*Send/ }).first();
  await sendButton.waitFor();
  const path = new RegExp(`^${operation.path.replaceAll('.', '\\.').replaceAll(/{\w+}/g, '[^/]+')}$`);
  let status = 0;
  const note = (response) => {
    const ours = response.request().method() === operation.method.toUpperCase() && path.test(new URL(response.url()).pathname);
    if (ours) status = response.status();
    return ours;
  };
  page.on('response', note);
  const answer = sends ? page.waitForResponse(note) : undefined;
  await Promise.all([answer, sendButton.click()]);
  const streams = operation.responses['200']?.content?.['text/event-stream'] !== undefined;
  let shown = '';
  if (!streams) {
    // Until the answer has come, the explorer shows that to the last request.
    const text = dialog.getByText(sends ? new RegExp(`^\\s*${status} [A-Z]`) : /^\s*[1-5]\d\d [A-Z]/).first();
    shown = (await text.textContent()).trim();
  }
  page.off('response', note);
  if (streams) closedStreams.set(page, closedStreams.get(page) + 1);
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  return { status, shown };
}

// How many operations a page has at most: with more, each takes longer; each page takes as long
// to open as five of them.
const readsOfPage = 24;

// tryReads tries every GET, which must answer as expected, a function of the operation.
// prepare makes a new page ready.
async function tryReads(context, who, expected, prepare = () => {}) {
  const reads = operations.filter(({ method, operationId }) => method === 'get' && !pages.has(operationId));
  while (reads.length > 0) {
    const some = reads.splice(0, readsOfPage);
    const page = await open(context, some);
    await prepare(page);
    await tryOn(page, some, who, expected);
    await page.close();
  }
}

async function tryOn(page, reads, who, expected) {
  for (const operation of reads) {
    const { status, shown } = await tryOut(page, operation).catch((error) => ({ status: `failure: ${error.message.split('\n')[0]}`, shown: '' }));
    const want = expected(operation);
    if (!want.includes(status)) report(`${who}: ${operation.operationId} answers ${status}, want ${want.join(' or ')}`);
    else if (shown !== '' && !shown.startsWith(String(status))) report(`${who}: ${operation.operationId} answers ${status} and shows ${JSON.stringify(shown)}`);
  }
}

function answers(operation) {
  const unknown = operation.parameters.some(({ name, in: place }) => place === 'path' && valueOf(operation.path, name) === undefined);
  return refused[operation.operationId] ?? (unknown ? [404] : [200]);
}

async function screenshot(page, name) {
  if (settings.screenshots) await page.screenshot({ path: `${settings.screenshots}/${name}.png` });
}

// asReader looks at all there is to read.
async function asReader() {
  const context = await browse();
  const page = await open(context);
  await screenshot(page, 'light');
  const guides = await page.evaluate(async () => (await fetch('/assets/explorer/guides.json')).json());
  for (const { title } of guides) await show(page, `tag/${slug(title)}`);
  await screenshot(page, 'guide');
  const chapters = { ControlMessage: 'Control channel messages', LiveEvent: 'Event messages' };
  const messages = Object.entries(chapters).flatMap(([union, name]) =>
    contract.components.schemas[union].oneOf.map(({ $ref }) => `tag/${slug(name)}/models/${$ref.split('/').pop()}`));
  const wanted = [...operations.map(anchor), ...messages];
  for (const tag of new Set(wanted.map((id) => id.split('/').slice(0, 2).join('/')))) {
    await page.locator(`a[href="#${tag}"]`).first().click();
    const first = wanted.find((id) => id.startsWith(`${tag}/`));
    await page.locator(`a[href="#${first}"]`).first().waitFor().catch(() => report(`${first} does not appear`));
  }
  const shown = new Set(await page.locator('a[href^="#tag/"]').evaluateAll((links) => links.map((link) => link.getAttribute('href'))));
  for (const id of wanted) if (!shown.has(`#${id}`)) report(`${id} does not appear`);
  await show(page, messages[0]);
  await screenshot(page, 'message');
  await context.close();
}

// asUser tries reads and a change with a session.
async function asUser() {
  const context = await browse();
  const page = await open(context);
  const status = await page.evaluate(async ({ email, password }) => (await fetch('/api/auth/login', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ email, password }),
  })).status, settings);
  if (status !== 200) report(`login answers ${status}`);

  const start = operations.find(({ operationId }) => operationId === 'startEnrollment');
  const button = (await show(page, anchor(start))).locator('button.show-api-client-button');
  await button.waitFor({ state: 'attached' });
  if (await button.isVisible()) report('it offers a POST without being asked to');
  const style = await page.addStyleTag({ content: '.show-api-client-button { display: flex !important; }' });
  const unsent = await tryOut(page, start, { sends: false });
  if (unsent.status !== 0 || !unsent.shown.startsWith('403')) report(`it sends a POST without being asked to: ${JSON.stringify(unsent)}`);
  await style.evaluate((element) => element.remove());
  await page.getByLabel('Allow changes').check();
  const sent = await tryOut(page, start);
  if (sent.status !== 201 && sent.status !== 200) report(`with changes allowed, a POST answers ${JSON.stringify(sent)}`);
  await page.reload();
  if (!await page.getByLabel('Allow changes').isChecked()) report('the tab forgets that changes are allowed');
  await page.close();
  await tryReads(context, 'with a session', answers);
  await context.close();
}

// asKey tries reads with an API key.
async function asKey() {
  const context = await browse({ colorScheme: 'dark', viewport: { width: 1000, height: 800 } });
  const enterKey = (page) => page.getByLabel(/Value/).or(page.locator('.scalar-reference-intro-auth input')).first().fill(settings.key);
  const expected = (operation) => {
    const security = operation.security ?? contract.security;
    const takesKeys = security.length === 0 || security.some((one) => one.apiKey);
    return takesKeys ? answers(operation) : [401, 403];
  };
  await tryReads(context, 'with a key', expected, enterKey);
  const page = await open(context);
  await screenshot(page, 'dark');
  await page.setViewportSize({ width: 390, height: 800 });
  await visit(page);
  await screenshot(page, 'narrow');
  await context.close();
}

try {
  await Promise.all([asReader(), asUser(), asKey()]);
} catch (error) {
  report(`failure: ${error.stack}`);
}
await browser.close();
process.exit(wrong.length > 0 ? 1 : 0);
