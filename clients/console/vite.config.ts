import { resolve } from 'node:path';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const sdk = resolve(import.meta.dirname, '../ts/src');

export default defineConfig({
  plugins: [react()],
  // The panel serves what is built from here: only index.html has addresses of its own.
  base: '/assets/console/',
  resolve: {
    alias: [
      { find: /^@eclitunnel\/sdk$/, replacement: `${sdk}/index.ts` },
      { find: /^@eclitunnel\/sdk\/react$/, replacement: `${sdk}/react/index.ts` },
    ],
    // The SDK's sources have no packages of their own.
    dedupe: ['react', 'react-dom', '@tanstack/react-query'],
  },
  build: {
    target: 'es2022',
    assetsDir: '',
    // A policy of the page forbids data: scripts and styles, so nothing is put inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 400,
  },
  server: {
    // `npm run dev` shows the pages of the sources with a panel beside it.
    proxy: Object.fromEntries(
      ['/api', '/openapi', '/errors', '/.well-known', '/readyz'].map((path) => [path, process.env['ECLITUNNEL_PANEL'] ?? 'http://127.0.0.1:8080']),
    ),
  },
});
