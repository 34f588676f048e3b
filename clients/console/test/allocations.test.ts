import type { Allocation } from '@eclitunnel/sdk';
import { describe, expect, test, vi } from 'vitest';
import { open, type Wanted } from '../src/allocations/opening.js';
import { portsText, presetOf, presets, type Preset } from '../src/allocations/presets.js';
import { addressesOf, enteredOf, originOf, type LimitField } from '../src/allocations/rules-fields.js';

describe('presets', () => {
  test('each is one that the panel accepts', () => {
    const all: readonly Preset[] = presets;
    for (const { id, ports, further = [] } of all) {
      for (const { localPort, count = 1 } of [ports, ...further]) {
        expect(localPort, id).toBeGreaterThanOrEqual(id === 'other' ? 0 : 1);
        expect(localPort + count - 1, id).toBeLessThanOrEqual(65_535);
        expect(count, id).toBeLessThanOrEqual(16);
      }
      expect(new Set(further.map(({ use }) => use)).size, id).toBe(further.length);
    }
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
  });

  test('an unknown one is any program', () => {
    expect(presetOf('of an older page').id).toBe('other');
  });

  test('ports are written as one range', () => {
    expect(portsText({ protocol: 'udp', localPort: 2456, count: 3 })).toBe('2456–2458 UDP');
    expect(portsText({ protocol: 'tcp+udp', localPort: 19132 })).toBe('19132 TCP + UDP');
  });
});

/** A panel that gives ports from 20000 on, and refuses requests of the given numbers. */
function panel(...refused: number[]) {
  let requests = 0;
  let next = 20_000;
  return {
    create: vi.fn(async ({ protocol, localPort, port, count = 1, serverId = 'one' }: { protocol: string; localPort: number; port?: number; count?: number; serverId?: string }) => {
      if (refused.includes(++requests)) throw new Error('refused');
      const first = port ?? next;
      if (port === undefined) next += count;
      const protocols = protocol === 'tcp+udp' ? ['tcp', 'udp'] : [protocol];
      const allocations = Array.from({ length: count }, (_, i) => protocols.map((protocol) => ({ id: (first + i) * 10 + protocols.indexOf(protocol), protocol, port: first + i, localPort: localPort + i, serverId })));
      return { allocations: allocations.flat() as unknown as Allocation[] };
    }),
    update: vi.fn(async (id: number, body: object) => ({ id, port: Math.trunc(id / 10), serverId: 'one', ...body }) as unknown as Allocation),
  };
}

function wanted(preset: Preset, more: Partial<Wanted> = {}): Wanted {
  return { deviceId: 'device', name: 'game', localHost: '127.0.0.1', ports: preset.ports, port: null, serverId: '', sameBy: 'free', further: [], ...more };
}

describe('opening ports', () => {
  const satisfactory = presetOf('satisfactory');
  const further = (satisfactory.further ?? []).map((ports) => ({ ...ports, name: 'more' }));

  test('asks for what was entered and nothing else', async () => {
    const requests = panel();
    await open(wanted(presetOf('valheim'), { port: 2456 }), presetOf('valheim'), requests, new Map());
    expect(requests.create.mock.calls).toEqual([[{ deviceId: 'device', protocol: 'udp', localPort: 2456, localHost: '127.0.0.1', name: 'game', count: 3, port: 2456 }]]);
    await open(wanted(presetOf('valheim'), { labels: { game: 'valheim' } }), presetOf('valheim'), requests, new Map());
    expect(requests.create.mock.lastCall?.[0]).toMatchObject({ labels: { game: 'valheim' } });
    expect(requests.update).not.toHaveBeenCalled();
  });

  test('a game that names its port gets the public number as its local one', async () => {
    const opened = await open(wanted(satisfactory, { further }), satisfactory, panel(), new Map());
    expect(opened.map(({ port, localPort }) => [port, localPort])).toEqual([
      [20_000, 20_000],
      [20_000, 20_000],
      [20_001, 20_001],
    ]);
  });

  test('or its own number as the public one', async () => {
    const requests = panel();
    const opened = await open(wanted(satisfactory, { further, sameBy: 'equal' }), satisfactory, requests, new Map());
    expect(opened.map(({ port }) => port)).toEqual([7777, 7777, 8888]);
    expect(requests.update).not.toHaveBeenCalled();
  });

  test('further ports are on the tunnel server of the first', async () => {
    const requests = panel();
    await open(wanted(satisfactory, { further }), satisfactory, requests, new Map());
    expect(requests.create.mock.calls.map(([{ serverId }]) => serverId)).toEqual([undefined, 'one']);
  });

  test('a second attempt goes on where the first has failed', async () => {
    const requests = panel(2);
    const made = new Map();
    await expect(open(wanted(satisfactory, { further }), satisfactory, requests, made)).rejects.toThrow('refused');
    const opened = await open(wanted(satisfactory, { further }), satisfactory, requests, made);
    expect(requests.create).toHaveBeenCalledTimes(3);
    expect(opened.map(({ port }) => port)).toEqual([20_000, 20_000, 20_001]);
  });
});

describe('rules', () => {
  const of = (effective: number | undefined, own?: number) => ({
    options: own === undefined ? {} : { maxPlayers: own },
    rules: effective === undefined ? {} : { maxPlayers: effective },
  });
  const site = { builtIn: { maxPlayers: 1000 }, defaults: {}, ceiling: {} };

  test.each([
    ['the allocation’s own', of(40, 40), { organisation: { maxPlayers: 30 }, site }, 'own'],
    ['above the ceiling', of(20, 40), { organisation: undefined, site: undefined }, 'ceiling'],
    ['of the organisation', of(30), { organisation: { maxPlayers: 30 }, site: undefined }, 'organisation'],
    ['of the organisation, above the ceiling', of(20), { organisation: { maxPlayers: 30 }, site: undefined }, 'ceiling'],
    ['of the panel, for who may not see its settings', of(1000), { organisation: {}, site: undefined }, 'panel'],
    ['a default of an admin', of(500), { organisation: {}, site: { ...site, defaults: { maxPlayers: 500 } } }, 'site'],
    ['built in', of(1000), { organisation: {}, site }, 'builtIn'],
    ['a ceiling where there is nothing else', of(20), { organisation: {}, site: { builtIn: {}, defaults: {}, ceiling: { maxPlayers: 20 } } }, 'ceiling'],
    ['absent', of(undefined), { organisation: {}, site }, 'none'],
  ] as const)('where one comes from: %s', (_, allocation, layers, origin) => {
    expect(originOf('maxPlayers', allocation, layers)).toBe(origin);
  });

  test('bandwidths are entered in megabits', () => {
    const field: LimitField = { name: 'downloadBitsPerSecond', bandwidth: true, min: 8000, max: 1e11 };
    expect(enteredOf(field, '12.5')).toBe(12_500_000);
    expect(enteredOf(field, '0.0081')).toBe(8100);
    expect(enteredOf(field, ' ')).toBeNull();
  });

  test('addresses may stand in lines or between commas', () => {
    expect(addressesOf(' 203.0.113.7\n2001:db8::/32, 203.0.113.7;10.0.0.0/8\r\n')).toEqual(['203.0.113.7', '2001:db8::/32', '10.0.0.0/8']);
    expect(addressesOf(' \n')).toEqual([]);
  });
});
