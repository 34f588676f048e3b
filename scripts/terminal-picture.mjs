// Draws what `eclitunnel run` shows in a terminal as docs/screenshots/terminal.png: the text
// that the tests of the picture compare it with, in its colours. make screenshots calls it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const { chromium } = createRequire(`${root}clients/console/package.json`)('playwright-core');

const styles = { 1: 'font-weight: bold', 2: 'opacity: .65', 31: 'color: #ff7b72', 32: 'color: #56d364', 33: 'color: #e3b341' };
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

// Select Graphic Rendition of ECMA-48, as far as the picture uses it.
const text = readFileSync(`${root}clients/eclitunnel/internal/face/testdata/colors-80x24.txt`, 'utf8');
const html = text.split(/\x1b\[(\d+)m/).map((part, i) => {
  if (i % 2 === 0) return escaped(part);
  if (part === '0') return '</span>';
  if (!styles[part]) throw new Error(`no style for ${part}`);
  return `<span style="${styles[part]}">`;
}).join('');

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
const page = await browser.newPage({ deviceScaleFactor: 2, viewport: { width: 760, height: 100 } });
await page.setContent(`<body style="margin: 0; background: #0d1117"><pre style="margin: 0; padding: 20px 24px; width: 80ch;
  font: 14px/1.4 'DejaVu Sans Mono', monospace; color: #e6edf3">${html}</pre>`);
await page.locator('pre').screenshot({ path: `${root}docs/screenshots/terminal.png` });
await browser.close();
