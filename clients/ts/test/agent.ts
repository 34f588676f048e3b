import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Panel } from './panel.js';

/** Starts a game that sends back what it gets, until the test ends, and returns its port. */
export async function startGame(): Promise<number> {
  const players = new Set<Socket>();
  const game = createServer((player) => {
    players.add(player);
    // A player who is cut off may reset the connection.
    player.on('error', () => player.destroy()).on('close', () => players.delete(player));
    player.pipe(player);
  });
  game.listen(0, '127.0.0.1');
  await once(game, 'listening');
  onTestFinished(async () => {
    for (const player of players) player.destroy();
    await new Promise((done) => game.close(done));
  });
  return (game.address() as AddressInfo).port;
}

/** Runs the built agent of a device until the test ends. */
export function startAgent(panel: Panel, token: string): void {
  const program = join(process.env['ECLITUNNEL_BIN'] ?? resolve(import.meta.dirname, '../../../bin'), 'eclitunnel');
  const directory = mkdtempSync(join(tmpdir(), 'eclitunnel-agent-'));
  writeFileSync(join(directory, 'token'), token, { mode: 0o600 });
  const args = ['run', '--panel', panel.url, '--token-file', join(directory, 'token'), '--state-dir', directory];
  const agent = spawn(program, args, { env: { ...process.env, HOME: directory }, stdio: 'ignore' });
  onTestFinished(async () => {
    const exited = once(agent, 'exit');
    agent.kill('SIGTERM');
    await exited;
    rmSync(directory, { recursive: true, force: true });
  });
}

/** A player of a game that sends back what it gets. */
export class Player {
  readonly #socket: Socket;
  /** Resolves when the game, or whoever cuts the player off, ends the connection. */
  readonly gone: Promise<unknown>;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.gone = new Promise((done) => this.#socket.on('error', () => undefined).on('close', done));
    onTestFinished(() => void this.#socket.destroy());
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
