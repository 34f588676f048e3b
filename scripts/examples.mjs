// Writes a TypeScript file that assigns every example of the contract to the type
// that openapi-typescript generates for its place. The file compiles only if
// generated clients accept what the documentation shows. A second file declares the
// name of every component among the globals; it compiles only if no type of that name
// would shadow one.
//
// usage: node scripts/examples.mjs CONTRACT.json TYPES EXAMPLES.ts NAMES.ts
import { readFileSync, writeFileSync } from 'node:fs';

const [contractFile, types, output, names] = process.argv.slice(2);
const contract = JSON.parse(readFileSync(contractFile, 'utf8'));
const lines = [`import type { components, operations } from '${types}';`];
let count = 0;

function assign(type, value) {
  count++;
  lines.push(`export const example${count}: ${type} = ${JSON.stringify(value)};`);
}

// index returns an indexed access type, such as operations["login"]["responses"][200].
function index(root, ...keys) {
  return keys.reduce((type, key) => `NonNullable<${type}>[${/^\d{3}$/.test(key) ? key : JSON.stringify(key)}]`, root);
}

// resolve follows a reference within the contract.
function resolve(node) {
  if (node.$ref === undefined) return node;
  return node.$ref.split('/').slice(1).reduce((parent, key) => parent[key], contract);
}

function content(type, body) {
  for (const [mediaType, media] of Object.entries(body?.content ?? {})) {
    const target = index(type, 'content', mediaType);
    if (media.example !== undefined) assign(target, media.example);
    for (const example of Object.values(media.examples ?? {})) assign(target, resolve(example).value);
  }
}

function schema(type, node) {
  if (node.example !== undefined) assign(type, node.example);
  for (const [name, property] of Object.entries(node.properties ?? {})) schema(index(type, name), property);
}

for (const path of Object.values(contract.paths)) {
  for (const operation of Object.values(path)) {
    if (!operation.operationId) continue;
    const type = index('operations', operation.operationId);
    content(index(type, 'requestBody'), operation.requestBody);
    for (const [status, response] of Object.entries(operation.responses)) {
      content(index(type, 'responses', status), response);
    }
  }
}
for (const [name, response] of Object.entries(contract.components.responses)) {
  content(index('components', 'responses', name), response);
}
for (const [name, node] of Object.entries(contract.components.schemas)) {
  schema(index('components', 'schemas', name), node);
}
if (count === 0) throw new Error('the contract has no examples');
writeFileSync(output, lines.join('\n') + '\n');
const { schemas, responses } = contract.components;
writeFileSync(names, Object.keys({ ...schemas, ...responses }).map((name) => `type ${name} = never;\n`).join(''));
console.log(`verify: compiling ${count} examples`);
