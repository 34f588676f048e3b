import { expect, expectTypeOf, test } from 'vitest';
import { numberOf, tunnelAdapter } from '../examples/eclipanel-adapter.js';
import { createClient } from '../src/index.js';
import { realPanel } from './realpanel.js';

const panel = realPanel();
const client = createClient({ baseUrl: panel.url, credentials: panel.token });

test('the adapter has devices and ports as EcliPanel has its things', async () => {
  const tunnels = tunnelAdapter(client);
  const { userCode } = await createClient({ baseUrl: panel.url }).enrollment.start({ name: 'gaming-rig' });
  const pending = await tunnels.pending(userCode);
  expectTypeOf(pending.agent_version).toEqualTypeOf<string | null>();
  expect(pending).toMatchObject({ user_code: userCode, name: 'gaming-rig', kind: 'client' });
  const { device } = await tunnels.approve(userCode);
  expect(device).toMatchObject({ approved: true, user_code: null, id: numberOf(device.uuid) });
  expectTypeOf(device.last_seen_at).toEqualTypeOf<string | null>();
  expect(Number.isSafeInteger(device.id)).toBe(true);

  const { allocations } = await tunnels.open({ device_id: device.id, protocol: 'tcp+udp', local_port: 19132 });
  expect(allocations.map(({ protocol, device_id, local_port }) => [protocol, device_id, local_port])).toEqual([
    ['tcp', device.id, 19132],
    ['udp', device.id, 19132],
  ]);
  const [first] = allocations;
  expectTypeOf<typeof first>().toExtend<{ public_addresses: string[]; created_at: string } | undefined>();
  expect(first?.options.proxy_protocol).toBe('none');
  expect((await tunnels.allocations()).allocations.filter(({ device_id }) => device_id === device.id)).toHaveLength(2);
  await tunnels.close(first?.id ?? 0);

  // Another page that knows only the number.
  const elsewhere = tunnelAdapter(client);
  expect((await elsewhere.device(device.id)).device.name).toBe('gaming-rig');
  await expect(elsewhere.device(1)).rejects.toThrow('there is no device 1');
  expect(await elsewhere.remove(device.id)).toEqual({ success: true });
  expect((await tunnels.devices()).devices.map(({ id }) => id)).not.toContain(device.id);
});
