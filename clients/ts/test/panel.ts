import { randomBytes } from 'node:crypto';
import type { TestProject } from 'vitest/node';
import { builtProgram, freePort, makeDirectory, panelArguments, Running, Started } from './programs.js';

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

/** Runs a panel for the time of the tests (vitest's globalSetup). */
export default async function setUp(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const path = builtProgram('eclitunneld');
  if (!path) {
    project.provide('panel', undefined);
    return undefined;
  }
  const started = new Started();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const [email, password] = ['admin@example.com', randomBytes(12).toString('hex')];
  const args = await panelArguments(makeDirectory(started, 'sdk'), port, '15000-15999');
  const panel = new Running(path, args, { ...process.env, ECLITUNNEL_ADMIN_EMAIL: email, ECLITUNNEL_ADMIN_PASSWORD: password });
  started.add(() => panel.stop());
  await panel.says(/panel is ready/);
  const login = await fetch(`${url}/api/auth/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password }),
  });
  const { token } = (await login.json()) as { token: string };
  project.provide('panel', { url, email, password, token });
  return () => started.stop();
}
