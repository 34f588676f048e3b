import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { keys } from '../src/lib/keys.js';

const source = join(import.meta.dirname, '../src');

test('no two keys are equal, whatever they are made of', () => {
  const names = new Map<string, string>();
  const add = (name: string, key: readonly unknown[]): void => {
    const text = JSON.stringify(key);
    expect(names.get(text), `${name} has the key of another`).toBeUndefined();
    names.set(text, name);
  };
  // The same value for all parameters, so that only what a key itself says tells two apart.
  for (const value of [7, 'organisations', { organisationId: 7 }]) {
    for (const [name, key] of Object.entries(keys)) {
      if (typeof key === 'function') add(`${name}(${JSON.stringify(value)})`, (key as (...values: unknown[]) => readonly unknown[])(...Array<unknown>(5).fill(value)));
    }
  }
  for (const [name, key] of Object.entries(keys)) if (typeof key !== 'function') add(name, key);
});

test('keys are made in one place', () => {
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => /\.tsx?$/.test(name) && name !== join('lib', 'keys.ts'));
  expect(files.filter((name) => /queryKey: \[|tunnelKeys\(/.test(readFileSync(join(source, name), 'utf8')))).toEqual([]);
});
