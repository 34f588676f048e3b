// Opens the panel's API explorer in Chromium and uses it as a reader does. It prints
// what is wrong, one line each, and exits with 1 if there is any.
//
// usage: node explorer.mjs SETTINGS.json
//
// SETTINGS: {"browser": PROGRAM, "url", "email", "password", "key", "screenshots": DIR or "",
// "parameters": {NAME: VALUE}, "ids": {PREFIX: VALUE}} where parameters are values in place
// of the contract's examples, and ids are those of the parameter id, by the path's beginning.
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

const patience = 30_000; // The machine may be busy.
const browser = await chromium.launch({ executablePath: settings.browser, args: ['--no-sandbox'] });

// open returns a page of a browser of its own that reaches the panel's origin only.
async function open(options) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
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
  const page = await context.newPage();
  page.on('pageerror', (error) => report(`error of the page: ${error.message}`));
  page.on('console', (message) => {
    // The browser logs refusals of the panel, which are looked at below, and the explorer the
    // end of a stream whose dialog is closed.
    const expected = ['Failed to load resource', 'Error reading stream: The request has been cancelled'];
    if (message.type() === 'error' && !expected.some((text) => message.text().startsWith(text))) {
      report(`error on the console: ${message.text()}`);
    }
  });
  return page;
}

// valueOf returns the value of a parameter on this panel, if the settings have one.
function valueOf(path, name) {
  if (name === 'id') return Object.entries(settings.ids).find(([prefix]) => path.startsWith(prefix))?.[1];
  return settings.parameters[name];
}

// withParameters puts values of this panel in place of the contract's examples.
function withParameters(document) {
  const put = (parameter, path) => {
    if (parameter.required) parameter.example = valueOf(path, parameter.name) ?? parameter.example;
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
  await page.locator('a[href="#tag/allocations"]').waitFor({ state: 'attached' });
}

// show opens what the side bar calls by an anchor.
async function show(page, id) {
  await page.evaluate((hash) => { location.hash = hash; }, `#${id}`);
  const section = page.locator(`[id="${id}"], [id$="/${id}"]`).first();
  await section.waitFor({ state: 'attached' });
  return section;
}

// tryOut sends an operation's request and returns the status that the panel answered
// with, or 0 if nothing was sent, and what the explorer shows.
async function tryOut(page, operation) {
  const section = await show(page, anchor(operation));
  await section.locator('button.show-api-client-button').click();
  const dialog = page.getByRole('dialog');
  const sendButton = dialog.getByRole('button', { name: /^Send/ }).first();
  await sendButton.waitFor();
  let status = 0;
  let answered;
  const answer = new Promise((resolve) => { answered = resolve; });
  const note = (response) => {
    if (response.request().method() !== operation.method.toUpperCase()) return;
    status = response.status();
    answered();
  };
  page.on('response', note);
  await sendButton.click();
  let shown = '';
  // A stream has no end that the explorer could show.
  if (operation.responses['200']?.content?.['text/event-stream']) await answer;
  else shown = (await dialog.getByText(/^\s*[1-5]\d\d [A-Z]/).first().textContent()).trim();
  page.off('response', note);
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  return { status, shown };
}

// tryReads tries every GET, which must answer as expected, a function of the operation.
async function tryReads(page, who, expected) {
  for (const operation of operations.filter(({ method, operationId }) => method === 'get' && !pages.has(operationId))) {
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

async function asReader() {
  const page = await open({});
  await visit(page);
  await screenshot(page, 'light');
  const guides = await page.evaluate(async () => (await fetch('/assets/explorer/guides.json')).json());
  for (const { title } of guides) await show(page, `tag/${slug(title)}`);
  await screenshot(page, 'guide');
  const chapters = { ControlMessage: 'Control channel messages', Event: 'Event messages' };
  const messages = Object.entries(chapters).flatMap(([union, name]) =>
    (contract.components.schemas[union]?.oneOf ?? []).map(({ $ref }) => `tag/${slug(name)}/models/${$ref.split('/').pop()}`));
  const wanted = [...operations.map(anchor), ...messages];
  for (const tag of new Set(wanted.map((id) => id.split('/').slice(0, 2).join('/')))) {
    await page.locator(`a[href="#${tag}"]`).first().click();
    const first = wanted.find((id) => id.startsWith(`${tag}/`));
    await page.locator(`a[href="#${first}"]`).first().waitFor().catch(() => report(`${first} does not appear`));
  }
  const shown = new Set(await page.locator('a[href^="#tag/"]').evaluateAll((links) => links.map((link) => link.getAttribute('href'))));
  for (const id of wanted) if (!shown.has(`#${id}`)) report(`${id} does not appear`);
  if (messages.length > 0) await show(page, messages[0]);
  await screenshot(page, 'message');

  const status = await page.evaluate(async ({ email, password }) => (await fetch('/api/auth/login', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ email, password }),
  })).status, settings);
  if (status !== 200) report(`login answers ${status}`);
  await tryReads(page, 'with a session', answers);

  const start = operations.find(({ operationId }) => operationId === 'startEnrollment');
  const button = (await show(page, anchor(start))).locator('button.show-api-client-button');
  if (await button.isVisible()) report('it offers a POST without being asked to');
  const style = await page.addStyleTag({ content: '.show-api-client-button { display: flex !important; }' });
  const unsent = await tryOut(page, start);
  if (unsent.status !== 0 || !unsent.shown.startsWith('403')) report(`it sends a POST without being asked to: ${JSON.stringify(unsent)}`);
  await style.evaluate((element) => element.remove());
  await page.getByLabel('Allow changes').check();
  const sent = await tryOut(page, start);
  if (sent.status !== 201 && sent.status !== 200) report(`with changes allowed, a POST answers ${JSON.stringify(sent)}`);
  await page.reload();
  if (!await page.getByLabel('Allow changes').isChecked()) report('the tab forgets that changes are allowed');
  await page.context().close();
}

async function asKey() {
  const page = await open({ colorScheme: 'dark', viewport: { width: 1000, height: 800 } });
  await visit(page);
  await screenshot(page, 'dark');
  await page.getByLabel(/Value/).or(page.locator('.scalar-reference-intro-auth input')).first().fill(settings.key);
  await tryReads(page, 'with a key', (operation) => {
    const security = operation.security ?? contract.security;
    const takesKeys = security.length === 0 || security.some((one) => one.apiKey);
    return takesKeys ? answers(operation) : [401, 403];
  });
  await page.setViewportSize({ width: 390, height: 800 });
  await visit(page);
  await screenshot(page, 'narrow');
  await page.context().close();
}

try {
  await Promise.all([asReader(), asKey()]);
} catch (error) {
  report(`failure: ${error.stack}`);
}
await browser.close();
process.exit(wrong.length > 0 ? 1 : 0);
