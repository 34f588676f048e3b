import type { Allocation, Device } from '@eclitunnel/sdk';
import { describe, expect, test } from 'vitest';
import { attention } from '../src/start/attention.js';
import { commandOf, type Enrollment } from '../src/start/systems.js';

const enrollment: Enrollment = { system: 'linux', panel: 'https://panel.example.com', name: 'home-server', tag: 'AbcdefghijklmnopqrstuA', login: undefined, install: false };

describe('the command of a machine', () => {
  test('enrolls it and runs the agent', () => {
    expect(commandOf(enrollment)).toBe('eclitunnel enroll --panel https://panel.example.com --name home-server --tag AbcdefghijklmnopqrstuA && eclitunnel run');
  });

  test('has no && in PowerShell', () => {
    expect(commandOf({ ...enrollment, system: 'windows' })).not.toContain('&&');
  });

  test.each([
    ['http://panel.example.com:8080', true],
    ['http://192.0.2.1', true],
    ['http://127.0.0.1:8080', false],
    ['http://localhost:8080', false],
    ['http://[::1]:8080', false],
    ['https://192.0.2.1', false],
  ])('takes an open connection only where there is one: %s', (panel, insecure) => {
    expect(commandOf({ ...enrollment, panel }).includes('--insecure')).toBe(insecure);
  });

  test.each(["Olga's rig", '$(reboot)', '"a"', '-x', 'a;b', 'a`b`', '%PATH%', 'größe'])('leaves out a name that shells take apart: %s', (name) => {
    expect(commandOf({ ...enrollment, name })).toBe(commandOf({ ...enrollment, name: '' }));
  });

  test('quotes a name with spaces', () => {
    expect(commandOf({ ...enrollment, name: 'my rig' })).toContain("--name 'my rig'");
  });

  test('fetches the agent from a panel that hands it out', () => {
    const install = { ...enrollment, name: '', install: true };
    expect(commandOf(install)).toBe('curl -fsSL https://panel.example.com/install | sh -s -- --tag AbcdefghijklmnopqrstuA');
    expect(commandOf({ ...install, system: 'macos', name: 'my rig' })).toBe("curl -fsSL https://panel.example.com/install | sh -s -- --name 'my rig' --tag AbcdefghijklmnopqrstuA");
    expect(commandOf({ ...install, system: 'windows' })).toBe("$env:ECLITUNNEL_TAG = 'AbcdefghijklmnopqrstuA'; irm https://panel.example.com/install.ps1 | iex");
    expect(commandOf({ ...install, system: 'windows', panel: 'http://192.0.2.1' })).toBe(
      '& ([scriptblock]::Create((irm http://192.0.2.1/install.ps1))) --insecure --tag AbcdefghijklmnopqrstuA',
    );
    expect(commandOf({ ...install, system: 'docker' })).toBe(commandOf({ ...enrollment, name: '', system: 'docker' }));
  });

  test('logs in only as somebody whose email no shell takes apart', () => {
    expect(commandOf({ ...enrollment, login: 'ada+x@example.com' })).toContain('--user ada+x@example.com');
    expect(commandOf({ ...enrollment, login: 'a$(b)@example.com' })).not.toContain('--user');
  });
});

const device = (changes: Partial<Device>): Device =>
  ({ id: 'd', name: 'rig', kind: 'client', approved: true, online: true, agentOutdated: false, lastSeenAt: '2026-01-01T00:00:00Z', expiresAt: null, ownerId: 1, server: null, ...changes }) as Device;
const port = (changes: Partial<Allocation>): Allocation => ({ id: 1, deviceId: 'd', status: 'listening', target: 'up', ...changes }) as Allocation;
const seen = { devices: [] as Device[], ports: [] as Allocation[], quota: undefined, userId: 1, now: Date.parse('2026-01-01T00:05:00Z') };
const kindsOf = (changes: Partial<typeof seen>): string[] => attention({ ...seen, ...changes }).map(({ kind }) => kind);

describe('what needs attention', () => {
  test('is nothing while everything runs', () => {
    expect(kindsOf({ devices: [device({})], ports: [port({}), port({ status: 'paused' }), port({ target: 'unknown' })] })).toEqual([]);
  });

  test('tells a device that is away from one that never came', () => {
    expect(kindsOf({ devices: [device({ online: false, lastSeenAt: null }), device({ online: false })] })).toEqual(['offline', 'never']);
  });

  test('does not blame the ports of a device that is away', () => {
    expect(kindsOf({ devices: [device({ online: false })], ports: [port({ status: 'offline' })] })).toEqual(['offline']);
    expect(kindsOf({ devices: [device({})], ports: [port({ status: 'offline' })] })).toEqual(['failed']);
  });

  test('has ports that do not work before games that do not answer', () => {
    expect(kindsOf({ devices: [device({})], ports: [port({ target: 'down' }), port({ status: 'failed' })] })).toEqual(['failed', 'noGame']);
  });

  test("has one's own machines that wait for approval, until their codes expire", () => {
    const waits = device({ approved: false, online: false, expiresAt: '2026-01-01T00:10:00Z' });
    expect(kindsOf({ devices: [waits, { ...waits, ownerId: 2 }, { ...waits, ownerId: null }, { ...waits, expiresAt: '2026-01-01T00:04:00Z' }] })).toEqual(['waits']);
  });

  test('has a quota that is used up, but not one of nothing', () => {
    const use = (limit: number | null, used: number) => ({ limit, used, own: null });
    const quota = { devices: use(0, 0), allocations: use(5, 5), portsOutsideRange: use(0, 0) };
    expect(attention({ ...seen, quota })).toEqual([{ kind: 'quota', resource: 'allocations', used: 5, limit: 5 }]);
  });

  test('has agents that are older than the panel', () => {
    expect(kindsOf({ devices: [device({ agentVersion: '1.9.3', agentOutdated: true }), device({ agentVersion: 'dev' })] })).toEqual(['outdated']);
  });
});
