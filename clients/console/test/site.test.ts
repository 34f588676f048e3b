import { describe, expect, it } from 'vitest';
import { flatten } from '../src/site/audit-changes.js';
import { changedMeanwhile, edited, patchOf, valuesOf, type Settings } from '../src/site/settings-fields.js';

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

describe('the settings form', () => {
  const settings = {
    features: { tunnels: true }, enrollment: { anonymous: true, ownersApprove: false }, organisations: { creators: 'admins' }, quota: { devices: null, allocations: 20, portsOutsideRange: 0 },
    usage: { minuteDays: 2, hourDays: 90, dayDays: 731 }, rules: { builtIn: {}, defaults: { maxPlayers: 200 }, ceiling: { downloadBitsPerSecond: 200_000_000 } }, warnings: [],
  } as Settings;
  const now = valuesOf(settings);

  it('has rates in megabits, and none as empty', () => {
    expect(now['rules.ceiling.downloadBitsPerSecond']).toBe('200');
    expect(now['quota.devices']).toBe('');
  });

  it('sends what was changed, and nothing else', () => {
    let draft = edited(undefined, now, 'features.tunnels', 'false');
    draft = edited(draft, now, 'rules.ceiling.downloadBitsPerSecond', '0.5');
    draft = edited(draft, now, 'rules.defaults.maxPlayers', '');
    draft = edited(draft, now, 'quota.allocations', '21');
    draft = edited(draft, now, 'quota.allocations', '20');
    expect(patchOf(draft?.changes ?? {})).toEqual({ features: { tunnels: false }, rules: { ceiling: { downloadBitsPerSecond: 500_000 }, defaults: { maxPlayers: null } } });
  });

  it('forgets a draft without changes', () => {
    expect(edited(edited(undefined, now, 'quota.devices', '5'), now, 'quota.devices', '')).toBeUndefined();
  });

  it('knows what others have changed, but for what is the same', () => {
    const draft = edited(undefined, now, 'quota.devices', '5') ?? { base: now, changes: {} };
    expect(changedMeanwhile(draft, { ...now, 'quota.devices': '5', 'usage.hourDays': '30' })).toEqual(['usage.hourDays']);
  });
});
