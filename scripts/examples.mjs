// Writes a TypeScript file that assigns every example of the contract to the type
// that openapi-typescript generates for its place. The file compiles only if
// generated clients accept what the documentation shows.
//
// usage: node scripts/examples.mjs CONTRACT.json TYPES OUTPUT.ts
import { readFileSync, writeFileSync } from 'node:fs';

const [contractFile, types, output] = process.argv.slice(2);
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

function content(type, body) {
  for (const [mediaType, media] of Object.entries(body?.content ?? {})) {
    const target = index(type, 'content', mediaType);
    if (media.example !== undefined) assign(target, media.example);
    for (const example of Object.values(media.examples ?? {})) assign(target, example.value);
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
console.log(`verify: compiling ${count} examples`);
