import { describe, expect, it } from 'vitest';
import { flatten } from '../src/site/audit-changes.js';
import { compareVersions, isBehind } from '../src/site/version-order.js';

describe('the order of versions', () => {
  it('compares numbers, not texts', () => {
    expect(compareVersions('0.9.0', '0.10.0')).toBeLessThan(0);
    expect(compareVersions('v1.2.3', '1.2.3')).toBe(0);
    expect(compareVersions('2.0.0', '1.99.99')).toBeGreaterThan(0);
  });

  it('does not know how builds of one’s own stand to releases', () => {
    expect(compareVersions('dev', '1.0.0')).toBeUndefined();
    expect(isBehind({ agentVersion: 'dev' }, '1.0.0')).toBe(false);
    expect(isBehind({ agentVersion: null }, '1.0.0')).toBe(false);
    expect(isBehind({ agentVersion: '0.9.9' }, '1.0.0')).toBe(true);
  });
});

describe('the changes of an entry', () => {
  it('shows of objects only what is different', () => {
    expect(flatten('rules', { defaults: { maxPlayers: 100, maxFlowsPerSource: 8 } }, { defaults: { maxPlayers: 200, maxFlowsPerSource: 8 } })).toEqual([['rules.defaults.maxPlayers', 100, 200]]);
  });

  it('shows each field of what is new', () => {
    expect(flatten('portRange', null, { first: 1, last: 2 })).toEqual([
      ['portRange.first', null, 1],
      ['portRange.last', null, 2],
    ]);
  });

  it('keeps plain values', () => {
    expect(flatten('name', 'a', null)).toEqual([['name', 'a', null]]);
    expect(flatten('options', null, {})).toEqual([['options', null, {}]]);
  });
});
