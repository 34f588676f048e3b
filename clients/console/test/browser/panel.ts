// Panels as operators run them, and what else the journeys need of the machine.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { createClient, type TunnelClient } from '@eclitunnel/sdk';
import { freePort, makeDirectory, panelArguments, program, Running, type Started } from '../../../ts/test/programs.js';

export { Player, startAgent, startDevice, Started, startGame } from '../../../ts/test/programs.js';

/** A panel with its own Postgres, or a replica beside it on the same database. */
export class Panel {
  readonly url: string;
  readonly email = 'admin@example.com';
  #running: Running | undefined;

  private constructor(
    port: number,
    readonly directory: string,
    /** The admin's. */
    readonly password: string,
    readonly args: string[],
  ) {
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Starts a panel with an empty database, and a tunnel server in it with the ports of `range`. */
  static async start(started: Started, range: string): Promise<Panel> {
    const directory = makeDirectory(started, 'console');
    const port = await freePort();
    const panel = new Panel(port, directory, randomBytes(12).toString('hex'), await panelArguments(directory, port, range));
    await panel.run();
    started.add(() => panel.stop());
    return panel;
  }

  /** Starts a replica on the database of this panel. */
  async replica(started: Started): Promise<Panel> {
    const port = await freePort();
    const replica = new Panel(port, this.directory, this.password, [
      'serve', '--listen', `127.0.0.1:${port}`, '--public-host', '127.0.0.1', '--public-url', this.url, '--database-url-file', join(this.directory, 'panel', 'database.url'), '--no-tunnel-server',
    ]);
    await replica.run();
    started.add(() => replica.stop());
    return replica;
  }

  async run(): Promise<void> {
    const running = new Running(program('eclitunneld'), this.args, { ...process.env, ECLITUNNEL_ADMIN_EMAIL: this.email, ECLITUNNEL_ADMIN_PASSWORD: this.password });
    this.#running = running;
    await running.says(/panel is ready/);
  }

  async stop(signal?: NodeJS.Signals): Promise<void> {
    await this.#running?.stop(signal);
  }

  /** Logs in, and returns a client with the session of the user. */
  async as(email = this.email, password = this.password): Promise<TunnelClient & { token: string }> {
    const { token } = await createClient({ baseUrl: this.url }).auth.login({ email, password });
    return Object.assign(createClient({ baseUrl: this.url, credentials: token }), { token });
  }
}

/** Makes a home directory of a machine: where its agent keeps what it was given. */
export function makeHome(started: Started): string {
  return makeDirectory(started, 'home');
}
