import type { Allocation, Schemas } from '@eclitunnel/sdk';
import type { Ports, Preset, PresetId } from './presets.js';

type Create = Schemas['AllocationCreate'];

/** What was opened for a game. */
export interface Opened {
  preset: PresetId;
  /** In the order of their ports, those that players enter first. */
  allocations: readonly Allocation[];
}

/** Which public ports a game gets whose ports have to be the same on both sides. */
export type SameBy = 'free' | 'equal';

/** What somebody has entered for a new port. */
export interface Wanted {
  deviceId: string;
  name: string;
  localHost: string;
  ports: Ports;
  /** The public port; without it the panel chooses one. */
  port: number | null;
  /** The tunnel server; without it the panel chooses one. */
  serverId: string;
  sameBy: SameBy;
  labels?: Schemas['Labels'];
  /** The further ports of the game that are opened too. */
  further: readonly (Ports & { name: string })[];
}

/** Sends requests; a page hands in the SDK's. */
export interface Requests {
  create(body: Create): Promise<{ allocations: readonly Allocation[] }>;
  update(id: number, body: Schemas['AllocationPatch']): Promise<Allocation>;
}

function bodyOf(wanted: Wanted, { protocol, localPort, count = 1 }: Ports, name: string, port: number | null, serverId: string): Create {
  return {
    deviceId: wanted.deviceId,
    protocol,
    localPort,
    localHost: wanted.localHost,
    name,
    ...(count > 1 && { count }),
    ...(port !== null && { port }),
    ...(serverId && { serverId }),
    ...(wanted.labels && Object.keys(wanted.labels).length > 0 && { labels: wanted.labels }),
  };
}

/**
 * Opens the ports of a game one request after the other, all on one tunnel server. If a
 * later request fails, the next attempt goes on with what `made` does not have yet: it
 * keeps what was opened for each request.
 */
export async function open(wanted: Wanted, preset: Preset, requests: Requests, made: Map<string, readonly Allocation[]>): Promise<Allocation[]> {
  const all: Allocation[] = [];
  let serverId = wanted.serverId;
  const parts = [{ ...wanted.ports, name: wanted.name, port: wanted.port }, ...wanted.further.map((ports) => ({ ...ports, port: null }))];
  for (const { name, port, ...ports } of parts) {
    const equal = preset.samePort && wanted.sameBy === 'equal';
    const body = bodyOf(wanted, ports, name, equal ? ports.localPort : port, serverId);
    const key = JSON.stringify(body);
    let allocations = made.get(key) ?? (await requests.create(body)).allocations;
    made.set(key, allocations);
    if (preset.samePort && wanted.sameBy === 'free') {
      allocations = await Promise.all(allocations.map((one) => (one.localPort === one.port ? one : requests.update(one.id, { localPort: one.port }))));
      made.set(key, allocations);
    }
    all.push(...allocations);
    serverId ||= allocations[0]?.serverId ?? '';
  }
  return all;
}
