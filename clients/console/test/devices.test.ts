import { describe, expect, it } from 'vitest';
import { isOlder, lifeOf, platformName } from '../src/devices/state.js';

const now = Date.parse('2026-11-30T12:00:00Z');
const device = { approved: true, expiresAt: null, online: false, lastSeenAt: null };

describe('lifeOf', () => {
  it('tells a machine that was never there from one that went', () => {
    expect(lifeOf(device, now)).toBe('never');
    expect(lifeOf({ ...device, lastSeenAt: '2026-11-30T11:00:00Z' }, now)).toBe('offline');
    expect(lifeOf({ ...device, online: true, lastSeenAt: '2026-11-30T11:00:00Z' }, now)).toBe('online');
  });

  it('ends the waiting of a machine when its code expires', () => {
    const waiting = { ...device, approved: false, expiresAt: '2026-11-30T12:00:00Z' };
    expect(lifeOf(waiting, now - 1)).toBe('waiting');
    expect(lifeOf(waiting, now)).toBe('expired');
  });
});

describe('isOlder', () => {
  it('compares releases by their numbers', () => {
    expect(isOlder('1.9.0', '1.10.0')).toBe(true);
    expect(isOlder('v1.2.3', '1.2.4')).toBe(true);
    expect(isOlder('1.2.3', '1.2.3')).toBe(false);
    expect(isOlder('2.0.0', '1.9.9')).toBe(false);
  });

  it('says nothing of what is no release, or not known', () => {
    expect(isOlder('dev', '1.0.0')).toBe(false);
    expect(isOlder('1.0.0', 'dev')).toBe(false);
    expect(isOlder(null, '1.0.0')).toBe(false);
    expect(isOlder('1.0.0', undefined)).toBe(false);
  });
});

describe('platformName', () => {
  it('names systems as people do', () => {
    expect(platformName('darwin/arm64')).toBe('macOS, arm64');
    expect(platformName('plan9/386')).toBe('plan9, 386');
    expect(platformName('linux')).toBe('Linux');
  });
});
