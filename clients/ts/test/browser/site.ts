import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { build } from 'esbuild';
import type { TunnelEvent } from '../../src/index.js';
import type { Panel } from '../panel.js';

export interface Site {
  url: string;
  /** The streams of events that are open. */
  open: Set<ServerResponse>;
  /** The position after which each stream since the start has begun. */
  resumed: (string | undefined)[];
  /** Adds an event, where the panel has no stream of its own. */
  publish: (event: TunnelEvent) => void;
  close: () => Promise<void>;
}

/**
 * Serves the page and, from the same origin over HTTP/1.1, the panel behind it. For a panel
 * without the stream of events it has one that sends the same frames.
 */
export async function startSite(panel: Panel): Promise<Site> {
  const { outputFiles } = await build({
    entryPoints: [resolve(import.meta.dirname, 'page.tsx')],
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' },
    write: false,
  });
  const script = outputFiles[0]?.contents ?? '';
  const open = new Set<ServerResponse>();
  const resumed: (string | undefined)[] = [];
  const log: string[] = [];

  const forward = (incoming: IncomingMessage, response: ServerResponse): void => {
    const { method, url, headers } = incoming;
    const outgoing = request(panel.url + url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    outgoing.on('error', () => response.destroy());
    response.on('close', () => outgoing.destroy());
    incoming.pipe(outgoing);
  };
  const stream = (incoming: IncomingMessage, response: ServerResponse): void => {
    const after = new URL(incoming.url ?? '', 'http://site').searchParams.get('lastEventId') ?? undefined;
    resumed.push(after);
    open.add(response);
    response.on('close', () => open.delete(response));
    if (panel.events) return forward(incoming, response);
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    const from = after === undefined ? log.length : Number(after);
    response.write(`retry: 1000\n\nid: ${from}\nevent: ready\ndata: {"type":"ready","at":"2026-11-30T12:00:00Z"}\n\n${log.slice(from).join('')}`);
  };
  const server = createServer((incoming, response) => {
    if (incoming.url === '/') {
      response.writeHead(200, { 'Content-Type': 'text/html' });
      response.end('<!doctype html><title>tunnels</title><div id="root"></div><script type="module" src="/page.js"></script>');
    } else if (incoming.url === '/page.js') {
      response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(script);
    } else if (incoming.url?.startsWith('/api/events')) stream(incoming, response);
    else forward(incoming, response);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    open,
    resumed,
    publish: (event) => {
      if (panel.events) return;
      const frame = `id: ${log.length + 1}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
      log.push(frame);
      for (const response of open) response.write(frame);
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}
