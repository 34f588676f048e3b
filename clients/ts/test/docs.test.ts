import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { realPanel } from './realpanel.js';

const panel = realPanel();
const root = resolve(import.meta.dirname, '..');

/** A directory in which the SDK is a package, as it was built. */
const directory = join(root, 'node_modules', '.documents');

/** The examples of a page in one language. */
function examples(page: string, language: string): string[] {
  const text = readFileSync(resolve(root, page), 'utf8');
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter((match) => match[1] === language).map((match) => match[2] ?? '');
}

const pages: [name: string, page: string][] = [
  ['the README', 'README.md'],
  ['the page for EcliPanel', '../../docs/eclipanel-frontend.md'],
];

beforeAll(() => {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(join(directory, 'node_modules', '@eclitunnel'), { recursive: true });
  symlinkSync(root, join(directory, 'node_modules', '@eclitunnel', 'sdk'));
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Each page's examples of TypeScript are one program, in which later ones use what earlier ones define. */
function program(page: string): string {
  return examples(page, 'ts').join('\n') + '\nexport {};\n';
}

test('the examples of the pages, and those in files, compile', async () => {
  const files: string[] = [];
  pages.forEach(([, page], i) => {
    files.push(`page${i}.ts`);
    writeFileSync(join(directory, `page${i}.ts`), program(page));
    examples(page, 'tsx').forEach((example, j) => {
      files.push(`page${i}-${j}.tsx`);
      writeFileSync(join(directory, `page${i}-${j}.tsx`), example);
    });
  });
  expect(files.length).toBeGreaterThan(2);
  const flags = ['--strict', '--noEmit', '--skipLibCheck', '--target', 'es2022', '--module', 'nodenext', '--jsx', 'react-jsx'];
  const tsc = join(root, 'node_modules', '.bin', 'tsc');
  await promisify(execFile)(tsc, [...flags, '--types', 'node', ...files], { cwd: directory }).catch((error: { stdout: string }) => {
    throw new Error(error.stdout);
  });
}, 120_000);

test.each(pages)('the examples of %s run', async (_, page) => {
  const { code } = await transform(program(page).replaceAll('https://panel.example.com', panel.url), { loader: 'ts' });
  const file = join(directory, `run-${page.replaceAll(/\W/g, '-')}.js`);
  writeFileSync(file, code);
  const env = { ...process.env, ECLITUNNEL_KEY: panel.token, ECLITUNNEL_EMAIL: panel.email, ECLITUNNEL_PASSWORD: panel.password };
  const { stderr } = await promisify(execFile)(process.execPath, [file], { cwd: directory, env, timeout: 60_000 });
  expect(stderr).toBe('');
}, 90_000);
