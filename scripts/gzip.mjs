// Compresses a file, or every file of a directory, for the panel's build to embed.
//
// usage: node scripts/gzip.mjs FILE FILE.gz | DIRECTORY DIRECTORY
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

// The same content gives the same bytes: the header has neither time nor name.
const compress = (from, to) => writeFileSync(to, gzipSync(readFileSync(from), { level: 9 }));

const [from, to] = process.argv.slice(2);
if (statSync(from).isDirectory()) {
  for (const name of readdirSync(from, { recursive: true })) {
    if (!statSync(join(from, name)).isFile()) continue;
    mkdirSync(dirname(join(to, name)), { recursive: true });
    compress(join(from, name), join(to, `${name}.gz`));
  }
} else {
  compress(from, to);
}
