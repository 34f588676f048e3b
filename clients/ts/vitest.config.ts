import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The examples name the package as their readers do.
  resolve: { alias: { '@eclitunnel/sdk': resolve(import.meta.dirname, 'src/index.ts') } },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/panel.ts',
    pool: 'threads',
    testTimeout: 20_000,
  },
});
