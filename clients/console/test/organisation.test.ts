import { describe, expect, test } from 'vitest';
import { changedRules, differingRules, panelsRule } from '../src/organisation/rules-changes.js';

function form(values: Record<string, string>): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(values)) data.set(name, value);
  return data;
}

describe('the rules of an organisation', () => {
  const before = { maxPlayers: 40, downloadBitsPerSecond: 2_000_000 };
  const unchanged = { maxPlayers: '40', downloadBitsPerSecond: '2' };

  test('are sent as far as they were changed', () => {
    expect(changedRules(before, form(unchanged))).toEqual({});
    expect(changedRules(before, form({ ...unchanged, maxPlayers: '50' }))).toEqual({ maxPlayers: 50 });
    expect(changedRules(before, form({ ...unchanged, downloadBitsPerSecond: '0.5' }))).toEqual({ downloadBitsPerSecond: 500_000 });
  });

  test('are taken away where a field was emptied', () => {
    expect(changedRules(before, form({ ...unchanged, maxPlayers: '' }))).toEqual({ maxPlayers: null });
  });

  test('differ in what others have set, changed or taken away', () => {
    const names = (now: object): string[] => differingRules(before, now).map(({ name }) => name);
    expect(names(before)).toEqual([]);
    expect(names({ ...before, maxPlayers: 41 })).toEqual(['maxPlayers']);
    expect(names({ maxPlayers: 40, uploadBitsPerSecond: 1_000_000 }).sort()).toEqual(['downloadBitsPerSecond', 'uploadBitsPerSecond']);
    // None at all and one that was taken away are the same.
    expect(names({ ...before, connectionsPerSecond: null })).toEqual([]);
  });
});

describe("the panel's rule", () => {
  test('is its default, before what is built in', () => {
    expect(panelsRule({ builtIn: { maxPlayers: 1000 }, defaults: {}, ceiling: {} }, 'maxPlayers')).toBe(1000);
    expect(panelsRule({ builtIn: { maxPlayers: 1000 }, defaults: { maxPlayers: 200 }, ceiling: {} }, 'maxPlayers')).toBe(200);
  });

  test('is at most its ceiling', () => {
    expect(panelsRule({ builtIn: { maxPlayers: 1000 }, defaults: {}, ceiling: { maxPlayers: 300 } }, 'maxPlayers')).toBe(300);
    expect(panelsRule({ builtIn: {}, defaults: {}, ceiling: { downloadBitsPerSecond: 5 } }, 'downloadBitsPerSecond')).toBe(5);
    expect(panelsRule({ builtIn: {}, defaults: {}, ceiling: {} }, 'downloadBitsPerSecond')).toBeUndefined();
  });
});
