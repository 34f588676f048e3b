// EcliTunnel for a frontend in which field names are snake_case, lists are in an object, and
// ids are numbers, as in EcliPanel's. Adapt the names of the methods and of the lists to it.
import type { Allocation, Device, TunnelClient } from '@eclitunnel/sdk';

type SnakeName<S extends string> = S extends `${infer Head}${infer Tail}`
  ? `${Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`}${SnakeName<Tail>}`
  : S;

/** A type with the names of its fields in snake_case. */
export type Snake<T> = T extends readonly (infer I)[]
  ? Snake<I>[]
  : T extends object
    ? { [K in keyof T & string as SnakeName<K>]: Snake<T[K]> }
    : T;

function snake<T>(value: T): Snake<T>;
function snake(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item: unknown) => snake(item));
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).map(([name, field]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), snake(field)]);
  return Object.fromEntries(fields);
}

/** The same number for a UUID each time: its first 48 bits, which are random. */
export function numberOf(uuid: string): number {
  return Number.parseInt(uuid.replaceAll('-', '').slice(0, 12), 16);
}

export function tunnelAdapter(client: TunnelClient) {
  const uuids = new Map<number, string>();
  const device = (from: Device) => {
    uuids.set(numberOf(from.id), from.id);
    return { ...snake(from), id: numberOf(from.id), uuid: from.id };
  };
  const allocation = (from: Allocation) => ({ ...snake(from), device_id: numberOf(from.deviceId), server_id: numberOf(from.serverId) });

  async function devices() {
    const list: ReturnType<typeof device>[] = [];
    for await (const one of client.devices.all()) list.push(device(one));
    return { devices: list };
  }
  /** The UUID of a number, which may be from an address that was opened, before any list. */
  async function uuidOf(id: number): Promise<string> {
    if (!uuids.has(id)) await devices();
    const uuid = uuids.get(id);
    if (uuid === undefined) throw new Error(`there is no device ${id}`);
    return uuid;
  }

  return {
    devices,
    async allocations() {
      const list: ReturnType<typeof allocation>[] = [];
      for await (const one of client.allocations.all()) list.push(allocation(one));
      return { allocations: list };
    },
    async device(id: number) {
      return { device: device(await client.devices.get(await uuidOf(id))) };
    },
    async open(port: { device_id: number; protocol: 'tcp' | 'udp' | 'tcp+udp'; local_port: number; name?: string }) {
      const { device_id, protocol, local_port: localPort, name = '' } = port;
      const { allocations } = await client.allocations.create({ deviceId: await uuidOf(device_id), protocol, localPort, name });
      return { allocations: allocations.map(allocation) };
    },
    async close(id: number) {
      return client.allocations.delete(id);
    },
    async pending(user_code: string) {
      return snake(await client.enrollment.pending({ userCode: user_code }));
    },
    async approve(user_code: string) {
      return { device: device((await client.enrollment.approve({ userCode: user_code })).device) };
    },
    async remove(id: number) {
      return client.devices.delete(await uuidOf(id));
    },
  };
}
