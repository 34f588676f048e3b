// What a browser showed when a test failed: its log has the text of each page, and where a picture of it is.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';

/** The most characters of a page that are printed. */
const mostText = 4000;

let directory: string | undefined;
let count = 0;

/** Prints what a page shows, and keeps a picture of it in a directory for temporary files. */
export async function report(page: Page): Promise<void> {
  const text = await page.evaluate(() => document.body.innerText).catch(String);
  directory ??= mkdtempSync(join(tmpdir(), 'eclitunnel-console-failed-'));
  const path = join(directory, `${++count}.png`);
  const picture = await page.screenshot({ path, fullPage: true, timeout: 5000 }).then(
    () => path,
    (error: unknown) => `no picture: ${String(error)}`,
  );
  console.error(`${page.url()} showed when the test failed (${picture}):\n${text.slice(0, mostText)}`);
}
