import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { build } from 'esbuild';
import type { Panel } from '../panel.js';

export interface Site {
  url: string;
  /** The streams of events that are open. */
  open: Set<ServerResponse>;
  /** The position after which each stream since the start has begun. */
  resumed: (string | undefined)[];
  close: () => Promise<void>;
}

/**
 * Serves the page and, from the same origin over HTTP/1.1, the panel behind it.
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
    forward(incoming, response);
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
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}
