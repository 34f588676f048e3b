import type { Allocation, Device, Schemas } from '@eclitunnel/sdk';

/** What needs attention, by what it is about. The panel's own words are in `reason`. */
export type Matter =
  | { kind: 'offline' | 'never' | 'outdated' | 'waits' | 'serverOffline' | 'draining' | 'drained' | 'hostWarning'; device: Device }
  | { kind: 'failed' | 'noGame'; port: Allocation; device: Device | undefined }
  | { kind: 'quota'; resource: 'devices' | 'allocations'; used: number; limit: number };

/** The kinds in the order in which they are shown: who is kept from playing comes first. */
export const kinds = ['serverOffline', 'hostWarning', 'offline', 'failed', 'noGame', 'draining', 'drained', 'never', 'quota', 'waits', 'outdated'] as const satisfies readonly Matter['kind'][];

function ofServer(device: Device): Matter[] {
  const { server } = device;
  if (!server) return [];
  if (!device.online) return [{ kind: 'serverOffline', device }];
  const matters: Matter[] = [];
  if (server.publicHostWarning) matters.push({ kind: 'hostWarning', device });
  if (server.state === 'draining' || server.state === 'drained') matters.push({ kind: server.state, device });
  return matters;
}

function ofClient(device: Device): Matter[] {
  if (!device.online) return [{ kind: device.lastSeenAt ? 'offline' : 'never', device }];
  return device.agentOutdated ? [{ kind: 'outdated', device }] : [];
}

interface Seen {
  devices: readonly Device[];
  ports: readonly Allocation[];
  quota: Schemas['Quota'] | undefined;
  /** Who looks, and at what time in milliseconds. */
  userId: number;
  now: number;
}

/** Returns what needs attention, in the order of `kinds`. */
export function attention({ devices, ports, quota, userId, now }: Seen): Matter[] {
  const byId = new Map(devices.map((device) => [device.id, device]));
  const matters = devices.flatMap((device): Matter[] => {
    if (!device.approved) return device.ownerId === userId && device.expiresAt && Date.parse(device.expiresAt) > now ? [{ kind: 'waits', device }] : [];
    return device.kind === 'server' ? ofServer(device) : ofClient(device);
  });
  for (const port of ports) {
    const device = byId.get(port.deviceId);
    // Of a device that is offline, that says it already.
    if (port.status === 'failed' || (port.status === 'offline' && device?.online)) matters.push({ kind: 'failed', port, device });
    if (port.status === 'listening' && port.target === 'down') matters.push({ kind: 'noGame', port, device });
  }
  for (const resource of ['devices', 'allocations'] as const) {
    const { limit, used } = quota?.[resource] ?? { limit: null, used: 0 };
    if (limit !== null && used > 0 && used >= limit) matters.push({ kind: 'quota', resource, used, limit });
  }
  return matters.sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind));
}
