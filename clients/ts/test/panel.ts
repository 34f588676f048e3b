import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    /** A panel of the built binary, which all tests share; undefined if nothing is built. */
    panel: Panel | undefined;
  }
}

export interface Panel {
  url: string;
  /** The admin's email and password, and a session of theirs. */
  email: string;
  password: string;
  token: string;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

/** Runs a panel for the time of the tests (vitest's globalSetup). */
export default async function setUp(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const program = join(process.env['ECLITUNNEL_BIN'] ?? resolve(import.meta.dirname, '../../../bin'), 'eclitunneld');
  if (!existsSync(program)) {
    project.provide('panel', undefined);
    return undefined;
  }
  const directory = mkdtempSync(join(tmpdir(), 'eclitunnel-'));
  // Started by root, Postgres runs as another user.
  chmodSync(directory, 0o755);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const [email, password] = ['admin@example.com', randomBytes(12).toString('hex')];
  const args = [
    'serve', '--listen', `127.0.0.1:${port}`, '--public-url', url, '--public-host', '127.0.0.1',
    '--relay-listen', `127.0.0.1:${await freePort()}`, '--port-range', '15000-15999', '--data-dir', join(directory, 'panel'),
    // The receivers of the tests are on this machine.
    '--webhook-private-targets',
  ];
  const env = { ...process.env, ECLITUNNEL_ADMIN_EMAIL: email, ECLITUNNEL_ADMIN_PASSWORD: password };
  const panel = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  const exited = new Promise<void>((done) => panel.on('close', () => done()));
  await new Promise<void>((ready, failed) => {
    const read = (text: Buffer): void => {
      log += text.toString();
      if (log.includes('panel is ready')) ready();
    };
    panel.stdout.on('data', read);
    panel.stderr.on('data', read);
    void exited.then(() => failed(new Error(`the panel has ended:\n${log}`)));
  });
  const login = await fetch(`${url}/api/auth/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password }),
  });
  const { token } = (await login.json()) as { token: string };
  project.provide('panel', { url, email, password, token });
  return async () => {
    panel.kill('SIGTERM');
    await exited;
    rmSync(directory, { recursive: true, force: true });
  };
}
