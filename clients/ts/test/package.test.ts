import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const bin = (name: string): string => join(root, 'node_modules', '.bin', name);

async function run(directory: string, program: string, ...args: string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, args, { cwd: directory });
    return stdout;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`);
  }
}

/** The bytes of a module and all that it imports, minified and compressed. */
async function size(source: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  return gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length;
}

describe('the runtime', () => {
  test('has at most 5 kB', async () => {
    expect(await size(`export * from './dist/index.js'`)).toBeLessThanOrEqual(5000);
  });

  test('is left out as far as it is not used', async () => {
    expect(await size(`import { createClient } from './dist/index.js'`)).toBeLessThan(50);
    expect(await size(`export { isCode } from './dist/index.js'`)).toBeLessThan(500);
  });

  test('depends on nothing', () => {
    expect(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))).not.toHaveProperty('dependencies');
  });
});

describe('the package', () => {
  let project: string;
  let tarball: string;

  beforeAll(async () => {
    project = mkdtempSync(join(tmpdir(), 'eclitunnel-sdk-'));
    await run(root, 'npm', 'pack', '--silent', '--pack-destination', project);
    tarball = join(project, readdirSync(project)[0] ?? '');
    writeFileSync(join(project, 'package.json'), '{"name":"fresh","private":true,"type":"module"}');
    await run(project, 'npm', 'install', '--offline', '--no-audit', '--no-fund', '--legacy-peer-deps', tarball);
    // What the fresh project would install besides.
    mkdirSync(join(project, 'node_modules', '@tanstack'), { recursive: true });
    mkdirSync(join(project, 'node_modules', '@types'), { recursive: true });
    for (const name of ['react', '@tanstack/react-query', '@tanstack/query-core', '@types/react', '@types/node', 'csstype', 'undici-types']) {
      symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name));
    }
  }, 120_000);
  afterAll(() => rmSync(project, { recursive: true, force: true }));

  test('is one that publint and arethetypeswrong approve', async () => {
    await run(root, bin('publint'), tarball, '--strict');
    await run(root, bin('attw'), tarball, '--profile', 'esm-only');
  }, 120_000);

  test('holds what is needed and nothing else', () => {
    const files = readdirSync(join(project, 'node_modules', '@eclitunnel', 'sdk'));
    expect(files.sort()).toEqual(['LICENSE', 'README.md', 'dist', 'package.json']);
  });

  test('runs in Node.js', async () => {
    writeFileSync(
      join(project, 'main.js'),
      `import { createClient, TunnelError } from '@eclitunnel/sdk';
       import { TunnelProvider } from '@eclitunnel/sdk/react';
       console.log(typeof createClient({ baseUrl: 'http://x' }).allocations.create, TunnelError.name, typeof TunnelProvider);`,
    );
    expect(await run(project, process.execPath, 'main.js')).toBe('function TunnelError function\n');
  });

  test.each([
    ['bundler', ['--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2022,dom,dom.iterable']],
    ['nodenext', ['--module', 'nodenext', '--lib', 'es2022,dom']],
    // A program for Node.js has no DOM.
    ['nodenext without DOM', ['--module', 'nodenext', '--lib', 'es2022']],
  ])('has types for %s, checked to the last declaration', async (name, flags) => {
    const file = name.includes('DOM') ? 'core.ts' : 'all.ts';
    writeFileSync(
      join(project, 'core.ts'),
      `import { createClient, isCode, type Allocation } from '@eclitunnel/sdk';
       const client = createClient({ baseUrl: 'http://x', credentials: async () => 'token' });
       export async function ports(): Promise<number[]> {
         const found: Allocation[] = [];
         for await (const allocation of client.allocations.all()) found.push(allocation);
         return found.map(({ port }) => port);
       }
       export function reason(error: unknown): string {
         if (isCode(error, 'quota_exceeded')) return String(error.quota.limit);
         return isCode(error, 'port_taken') ? error.requestId : '';
       }
       // @ts-expect-error: not any
       export const wrong: string = client.allocations.get(1);`,
    );
    writeFileSync(
      join(project, 'all.ts'),
      `export * from './core.js';
       import { useAllocations } from '@eclitunnel/sdk/react';
       export function useNames(): string[] {
         return useAllocations().data?.map(({ name }) => name) ?? [];
       }
       // @ts-expect-error: not any
       export const wrong2: () => number = useNames;`,
    );
    const skip = name.includes('DOM') ? [] : ['--skipLibCheck'];
    await run(project, bin('tsc'), '--strict', '--noEmit', '--target', 'es2022', '--types', 'node', ...skip, ...flags, file);
  }, 120_000);
});
