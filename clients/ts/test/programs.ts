// The built programs, games and players, for the tests of the SDK and those of the console.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const programs = process.env['ECLITUNNEL_BIN'] ?? resolve(import.meta.dirname, '../../../bin');

/** Returns the path of a built program; undefined if nothing is built. */
export function builtProgram(name: 'eclitunneld' | 'eclitunnel'): string | undefined {
  const path = join(programs, name);
  return existsSync(path) ? path : undefined;
}

/** Returns the path of a built program. */
export function program(name: 'eclitunneld' | 'eclitunnel'): string {
  const path = builtProgram(name);
  if (!path) throw new Error(`there is no ${join(programs, name)}: run make build, or name its directory in ECLITUNNEL_BIN`);
  return path;
}

/** Where it is noted how to end what is started. */
export interface Ends {
  add(stop: () => Promise<unknown> | unknown): void;
}

/** What was started, in the order in which it is stopped: the last first. */
export class Started implements Ends {
  readonly #stops: (() => Promise<unknown> | unknown)[] = [];

  add(stop: () => Promise<unknown> | unknown): void {
    this.#stops.push(stop);
  }

  async stop(): Promise<void> {
    for (let stop = this.#stops.pop(); stop; stop = this.#stops.pop()) await stop();
  }
}

/** Makes a directory, which goes with what was started. */
export function makeDirectory(ends: Ends, name: string): string {
  const directory = mkdtempSync(join(tmpdir(), `eclitunnel-${name}-`));
  ends.add(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
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

/** The arguments of a panel with its own Postgres in a directory, and a tunnel server in it with the ports of `range`. */
export async function panelArguments(directory: string, port: number, range: string): Promise<string[]> {
  // Started by root, Postgres runs as another user.
  chmodSync(directory, 0o755);
  return [
    'serve', '--listen', `127.0.0.1:${port}`, '--public-host', '127.0.0.1',
    '--public-url', `http://127.0.0.1:${port}`, '--data-dir', join(directory, 'panel'),
    // The receivers of webhooks are on this machine.
    '--relay-listen', `127.0.0.1:${await freePort()}`, '--port-range', range, '--webhook-private-targets',
  ];
}

/** Runs the agent of a device that was made without an enrollment, on a machine of its own. */
export function startDevice(ends: Ends, panel: { url: string }, token: string): Running {
  const home = makeDirectory(ends, 'home');
  writeFileSync(join(home, 'token'), token, { mode: 0o600 });
  return startAgent(ends, home, ['run', '--panel', panel.url, '--token-file', join(home, 'token'), '--state-dir', home]);
}

/** Runs a command of the agent on the machine with a home directory. */
export function startAgent(ends: Ends, home: string, args: string[]): Running {
  const { XDG_CONFIG_HOME: _config, XDG_STATE_HOME: _state, ...env } = process.env;
  const agent = new Running(program('eclitunnel'), args, { ...env, HOME: home });
  ends.add(() => agent.stop());
  return agent;
}

/** Starts a game that sends back what it gets, and returns its port. */
export async function startGame(ends: Ends): Promise<number> {
  const players = new Set<Socket>();
  const game = createServer((player) => {
    players.add(player);
    // A player who is cut off may reset the connection.
    player.on('error', () => player.destroy()).on('close', () => players.delete(player));
    player.pipe(player);
  });
  game.listen(0, '127.0.0.1');
  await once(game, 'listening');
  ends.add(async () => {
    for (const player of players) player.destroy();
    await new Promise((done) => game.close(done));
  });
  return (game.address() as AddressInfo).port;
}

/** A player of a game that sends back what it gets. */
export class Player {
  readonly #socket: Socket;
  /** Resolves when the game, or whoever cuts the player off, ends the connection. */
  readonly gone: Promise<unknown>;

  constructor(ends: Ends, port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.gone = new Promise((done) => this.#socket.on('error', () => undefined).on('close', done));
    ends.add(() => this.#socket.destroy());
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
