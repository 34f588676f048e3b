// From an empty panel to a player's byte, and back to nothing, as a person does it.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Page } from 'playwright-core';
import { picture, shown, Visitor } from './pages.js';
import { makeHome, Panel, Player, Started, startAgent, startGame } from './panel.js';

const started = new Started();
let panel: Panel;
let replica: Panel;

beforeAll(async () => {
  panel = await Panel.start(started, '16000-16099');
  replica = await panel.replica(started);
});
afterAll(() => started.stop());

/** Returns the words of the command of the page that enrolls. */
function wordsOf(command: string): string[] {
  const [, words] = /^eclitunnel (enroll .*) && eclitunnel run$/.exec(command) ?? [];
  if (!words) throw new Error(`the page has another command: ${command}`);
  return words.split(' ');
}

test('a machine, its first port, a player, and the end of all three', async () => {
  const visitor = await Visitor.open(started, panel);
  const page = await visitor.signIn('/');
  const began = Date.now();

  await page.getByRole('link', { name: 'Set up the first machine' }).click();
  await page.getByLabel('Name', { exact: true }).fill('home-server');
  const command = await page.locator('.command code').filter({ hasText: 'eclitunnel enroll' }).first().innerText();
  const home = makeHome(started);
  const enrolling = startAgent(started, home, wordsOf(command));
  const code = (await enrolling.says(/\b([A-Z0-9]{4}-[A-Z0-9]{4})\b/))[1] ?? '';
  await page.getByText(code).first().waitFor();
  await picture(page, 'first-run');
  await page.getByRole('button', { name: 'Approve', exact: true }).click();
  await enrolling.exited;
  const agent = startAgent(started, home, ['run']);

  // A game that is no preset's: its own port.
  const game = await startGame(started);
  await page.getByRole('radio', { name: /Minecraft Java/ }).check();
  await page.getByLabel('Local port').fill(String(game));
  await page.getByRole('button', { name: 'Open the port' }).click();
  await page.getByText('Waiting for the first player').waitFor();
  const port = Number((await page.getByText(/^127\.0\.0\.1:\d+$/).first().innerText()).split(':')[1]);
  const player = new Player(started, port);
  await player.play(100_000);
  await page.getByText('Your first player is here').waitFor();
  const seconds = (Date.now() - began) / 1000;
  console.log(`from an empty panel to a player's byte: ${seconds.toFixed(1)} s`);
  expect(seconds).toBeLessThan(120);
  await picture(page, 'first-player');

  // Players and traffic of the port, where the player is cut off.
  await page.getByRole('link', { name: /TCP/ }).first().click();
  await page.getByRole('link', { name: 'Players', exact: true }).click();
  await page.getByRole('button', { name: 'Cut off 127.0.0.1' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cut off' }).click();
  await player.gone;
  await page.getByText('Nobody is connected').waitFor();
  await page.getByRole('link', { name: 'Traffic', exact: true }).first().click();
  await page.locator('canvas').first().waitFor();

  // A pause is undone by its notice.
  await page.goto('/allocations');
  await pauseAndUndo(page);

  // What another replica changes shows here.
  const there = await replica.as();
  const [device] = await there.devices.list({ kind: 'client' });
  if (!device) throw new Error('the panel has no device');
  await page.goto(`/devices/${device.id}`);
  await shown(page);
  await there.devices.update(device.id, { name: 'renamed-elsewhere' });
  await page.getByRole('heading', { name: 'renamed-elsewhere', level: 1 }).waitFor();

  // The port goes, then the device, and the agent ends.
  await page.goto('/allocations');
  await page.getByRole('button', { name: /^Actions: Minecraft/ }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('heading', { name: 'No ports yet' }).waitFor();
  await page.goto(`/devices/${device.id}`);
  await page.getByRole('button', { name: 'Actions' }).click();
  await page.getByRole('menuitem', { name: /Delete/ }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox').fill('renamed-elsewhere');
  await dialog.getByRole('button', { name: /Delete/ }).click();
  await agent.exited;
  expect(agent.process.exitCode, agent.output).not.toBe(0);
  await page.getByRole('heading', { name: 'Devices', level: 1 }).waitFor();
  await visitor.leave();
});

async function pauseAndUndo(page: Page): Promise<void> {
  const menu = page.getByRole('button', { name: /^Actions: Minecraft/ });
  await menu.click();
  await page.getByRole('menuitem', { name: 'Pause' }).click();
  await page.getByText('is paused. Its players are disconnected.').waitFor();
  const row = page.getByRole('row').filter({ has: menu });
  await row.getByText('Paused').waitFor();
  await page.getByRole('button', { name: 'Undo' }).click();
  await row.getByText('Open', { exact: true }).waitFor();
}
