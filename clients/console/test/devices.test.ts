import { describe, expect, it } from 'vitest';
import { lifeOf, platformName } from '../src/devices/state.js';

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

describe('platformName', () => {
  it('names systems as people do', () => {
    expect(platformName('darwin/arm64')).toBe('macOS, arm64');
    expect(platformName('plan9/386')).toBe('plan9, 386');
    expect(platformName('linux')).toBe('Linux');
  });
});
