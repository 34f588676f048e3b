// The built programs as people run them: panels, tunnel clients, games and players.
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createClient, type TunnelClient } from '@eclitunnel/sdk';

const programs = process.env['ECLITUNNEL_BIN'] ?? resolve(import.meta.dirname, '../../../../bin');

/** Returns the path of a built program. */
export function program(name: 'eclitunneld' | 'eclitunnel'): string {
  const path = join(programs, name);
  if (!existsSync(path)) throw new Error(`there is no ${path}: run make build, or name its directory in ECLITUNNEL_BIN`);
  return path;
}

/** What was started, in the order in which it is stopped: the last first. */
export class Started {
  readonly #stops: (() => Promise<unknown> | unknown)[] = [];

  add(stop: () => Promise<unknown> | unknown): void {
    this.#stops.push(stop);
  }

  async stop(): Promise<void> {
    for (let stop = this.#stops.pop(); stop; stop = this.#stops.pop()) await stop();
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

/** A program whose output is kept, and waited for. */
export class Running {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
  output = '';
  readonly #listeners = new Set<() => void>();

  constructor(path: string, args: string[], env: NodeJS.ProcessEnv) {
    this.process = spawn(path, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.exited = once(this.process, 'close');
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.on('data', (text: Buffer) => {
        this.output += text.toString();
        for (const listener of this.#listeners) listener();
      });
    }
  }

  /** Waits until the output matches. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((done, failed) => {
      const look = (): void => {
        const found = pattern.exec(this.output);
        if (!found) return;
        this.#listeners.delete(look);
        done(found);
      };
      this.#listeners.add(look);
      look();
      void this.exited.then(() => failed(new Error(`the program has ended and did not say ${pattern}:\n${this.output}`)));
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill(signal);
    await this.exited;
  }
}

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
    this.args = ['serve', '--listen', `127.0.0.1:${port}`, '--public-host', '127.0.0.1', ...args];
  }

  /** Starts a panel with an empty database, and a tunnel server in it with the ports of `range`. */
  static async start(started: Started, range: string): Promise<Panel> {
    const directory = mkdtempSync(join(tmpdir(), 'eclitunnel-console-'));
    // Started by root, Postgres runs as another user.
    chmodSync(directory, 0o755);
    started.add(() => rmSync(directory, { recursive: true, force: true }));
    const port = await freePort();
    const panel = new Panel(port, directory, randomBytes(12).toString('hex'), [
      '--public-url', `http://127.0.0.1:${port}`, '--data-dir', join(directory, 'panel'),
      '--relay-listen', `127.0.0.1:${await freePort()}`, '--port-range', range, '--webhook-private-targets',
    ]);
    await panel.run();
    started.add(() => panel.stop());
    return panel;
  }

  /** Starts a replica on the database of this panel. */
  async replica(started: Started): Promise<Panel> {
    const port = await freePort();
    const replica = new Panel(port, this.directory, this.password, [
      '--public-url', this.url, '--database-url-file', join(this.directory, 'panel', 'database.url'), '--no-tunnel-server',
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
  const home = mkdtempSync(join(tmpdir(), 'eclitunnel-home-'));
  started.add(() => rmSync(home, { recursive: true, force: true }));
  return home;
}

/** Runs a command of the agent on the machine with a home directory. */
export function startAgent(started: Started, home: string, args: string[]): Running {
  const { XDG_CONFIG_HOME: _config, XDG_STATE_HOME: _state, ...env } = process.env;
  const agent = new Running(program('eclitunnel'), args, { ...env, HOME: home });
  started.add(() => agent.stop());
  return agent;
}

/** Runs the agent of a device that was made without an enrollment. */
export function startDevice(started: Started, panel: Panel, token: string): Running {
  const home = makeHome(started);
  writeFileSync(join(home, 'token'), token, { mode: 0o600 });
  return startAgent(started, home, ['run', '--panel', panel.url, '--token-file', join(home, 'token'), '--state-dir', home]);
}

/** Starts a game that sends back what it gets, and returns its port. */
export async function startGame(started: Started): Promise<number> {
  const players = new Set<Socket>();
  const game = createServer((player) => {
    players.add(player);
    player.on('error', () => player.destroy()).on('close', () => players.delete(player));
    player.pipe(player);
  });
  game.listen(0, '127.0.0.1');
  await once(game, 'listening');
  started.add(async () => {
    for (const player of players) player.destroy();
    await new Promise((done) => game.close(done));
  });
  return (game.address() as AddressInfo).port;
}

/** A player of a game that sends back what it gets. */
export class Player {
  readonly #socket: Socket;
  /** Resolves when the connection ends. */
  readonly gone: Promise<unknown>;

  constructor(started: Started, port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.gone = new Promise((done) => this.#socket.on('error', () => undefined).on('close', done));
    started.add(() => this.#socket.destroy());
  }

  /** Sends bytes, and waits until they are back. */
  async play(bytes: number): Promise<void> {
    const back = new Promise<void>((done, failed) => {
      let left = bytes;
      const read = (data: Buffer): void => {
        left -= data.length;
        if (left > 0) return;
        this.#socket.off('data', read);
        done();
      };
      this.#socket.on('data', read);
      void this.gone.then(() => failed(new Error('the connection has ended')));
    });
    this.#socket.write(Buffer.alloc(bytes));
    await back;
  }
}
