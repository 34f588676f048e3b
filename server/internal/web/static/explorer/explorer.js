// Shows the contract in the API explorer. What a reader sees besides the operations is
// composed here: guides, and the messages that no operation shows. The contract itself
// stays as the panel serves it.

const changes = document.getElementById('changes');
const reads = new Set(['GET', 'HEAD', 'OPTIONS']);

// A tab's own, so that another one does not begin to offer changes.
const remembered = 'eclitunnel.explorer.changes';
function applyChanges() {
  document.documentElement.toggleAttribute('data-changes', changes.checked);
  sessionStorage.setItem(remembered, changes.checked ? 'yes' : 'no');
}
changes.checked = sessionStorage.getItem(remembered) === 'yes';
changes.addEventListener('change', applyChanges);
applyChanges();

// send sends what the explorer asks for. Hiding a button is not enough: it has other
// ways to an operation.
async function send(input, init) {
  const request = new Request(input, init);
  if (!reads.has(request.method) && !changes.checked) {
    return Response.json({ error: 'not_sent', message: 'This would change something. Allow changes at the top of the page to send it.' }, { status: 403, statusText: 'Not sent' });
  }
  return fetch(request);
}

async function read(path) {
  const response = await fetch(path, { headers: { Accept: 'application/json' } });
  if (!response.ok) throw new Error(`${path} answers ${response.status}`);
  return response.json();
}

// chapter makes a tag of the messages that a schema is one of. Each has the name that its
// field `type` has, and its example below its description.
function chapter(schemas, union, name, introduction) {
  const { description, oneOf, discriminator } = schemas[union] ?? {};
  if (!oneOf?.length) return [];
  for (const { $ref } of oneOf) {
    const key = $ref.split('/').pop();
    const schema = schemas[key];
    const types = Object.entries(discriminator.mapping).filter(([, reference]) => reference === $ref);
    schema.title = types.map(([type]) => type).join(', ');
    schema['x-tags'] = [name];
    if (schema.example !== undefined) {
      schema.description = `${schema.description ?? ''}\n\n\`\`\`json\n${JSON.stringify(schema.example, null, 2)}\n\`\`\`\n`;
    }
    // In the order of the contract, where the explorer takes that of the object.
    delete schemas[key];
    schemas[key] = schema;
  }
  return [{ name, description: `${description}\n\n${introduction}` }];
}

// fill has a parameter's example filled in. One that need not be given is sent only if the
// reader switches it on. Of two that stand for each other, the one is sent that the contract
// requires unless the other is given. The examples of an operation have one name in common,
// by which the explorer chooses them.
function fill(parameter, schemas) {
  const schema = schemas[parameter.schema?.$ref?.split('/').pop()] ?? parameter.schema;
  const value = parameter.example ?? schema?.example;
  if (parameter.$ref || value === undefined) return;
  delete parameter.example;
  const sent = parameter.required || parameter['x-required-unless'];
  parameter.examples = { example: sent ? { value } : { value, 'x-disabled': true } };
}

function compose(contract, guides) {
  const { schemas, parameters } = contract.components;
  contract.tags = [
    ...guides.map(({ title, text }) => ({ name: title, description: text })),
    ...contract.tags,
    ...chapter(schemas, 'ControlMessage', 'Control channel messages',
      'A device and the panel send these to each other over `GET /api/tunnel/ws`, each as one text message of JSON. `docs/protocol.md` has their order, and what either end does on each.'),
    ...chapter(schemas, 'LiveEvent', 'Event messages',
      '`GET /api/events` sends these as server-sent events, each as one line of JSON.'),
  ];
  for (const parameter of Object.values(parameters ?? {})) fill(parameter, schemas);
  for (const path of Object.values(contract.paths)) {
    for (const part of [path, ...Object.values(path)]) part.parameters?.forEach((parameter) => fill(parameter, schemas));
  }
  return contract;
}

// load loads the explorer's bundle, which is no module.
async function load() {
  // Its validator would try whether it may generate code, which the page's policy forbids.
  globalThis.__zod_globalConfig = { jitless: true };
  const script = document.createElement('script');
  script.src = '/assets/explorer/scalar.js';
  const loaded = new Promise((resolve, reject) => {
    script.addEventListener('load', resolve);
    script.addEventListener('error', () => reject(new Error(`${script.src} cannot be loaded`)));
  });
  document.head.append(script);
  await loaded;
}

try {
  const [contract, guides] = await Promise.all([read('/openapi.json'), read('/assets/explorer/guides.json'), load()]);
  document.getElementById('notice').remove();
  globalThis.Scalar.createApiReference('#explorer', {
    content: compose(contract, guides),
    baseServerURL: location.origin,
    customFetch: send,
    authentication: { preferredSecurityScheme: 'apiKey' },
    // Nothing is asked of another origin; the page's policy refuses it too.
    proxyUrl: '',
    telemetry: false,
    withDefaultFonts: false,
    showDeveloperTools: 'never',
    hideClientButton: true,
    agent: { disabled: true },
    mcp: { disabled: true },
    documentDownloadType: 'none',
    persistAuth: false,
    orderSchemaPropertiesBy: 'preserve',
    defaultOpenFirstTag: false,
    defaultHttpClient: { targetKey: 'shell', clientKey: 'curl' },
    showOperationId: true,
  });
} catch (error) {
  const notice = document.getElementById('notice') ?? document.getElementById('explorer');
  notice.textContent = `The explorer cannot show the contract: ${error.message}.`;
}
