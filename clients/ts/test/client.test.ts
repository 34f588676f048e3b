import { describe, expect, expectTypeOf, test } from 'vitest';
import { createClient, type Allocation, type AllocationDetail, type Device, type Result } from '../src/index.js';
import { json, serve } from './server.js';

const allocation = { id: 42, port: 20117 };

describe('requests', () => {
  test('go to the path of the operation, with its values escaped', async () => {
    const { url, received } = await serve((_, response) => json(response, 200, allocation));
    const client = createClient({ baseUrl: url + '/', credentials: 'a-token' });

    expect(await client.allocations.get(42)).toEqual(allocation);
    await client.allocations.list({ limit: 5 });
    await client.allocations.list({ label: ['game=a,b', 'managed-by'] });
    await client.devices.get('a/b?c');
    await client.organisations.updateMember(7, 8, { role: 'admin' });
    await client.users.delete(9, { devices: 'move', newOwnerId: 1 });
    expect(received.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /api/tunnel/allocations/42',
      'GET /api/tunnel/allocations?limit=5',
      'GET /api/tunnel/allocations?label=game%3Da%2Cb&label=managed-by',
      'GET /api/tunnel/devices/a%2Fb%3Fc',
      'PATCH /api/organisations/7/members/8',
      'DELETE /api/users/9?devices=move&newOwnerId=1',
    ]);
    expect(received[4]?.body).toBe('{"role":"admin"}');
    expect(received[4]?.headers['content-type']).toBe('application/json');
    expect(received[0]?.headers['content-type']).toBeUndefined();
    expect(received[0]?.headers.authorization).toBe('Bearer a-token');
  });

  test.each(['', '.', '..'])('with the value %j in the path are refused', async (value) => {
    const client = createClient({ baseUrl: 'http://127.0.0.1:1' });
    expect(() => client.devices.delete(value)).toThrow(TypeError);
  });

  test('without content resolve with undefined', async () => {
    const { url } = await serve((_, response) => response.writeHead(204).end());
    expect(await createClient({ baseUrl: url }).auth.logout()).toBeUndefined();
  });

  test('carry If-Match, and results their ETag and request ID', async () => {
    const { url, received } = await serve((_, response) => json(response, 200, allocation, { ETag: '"7"', 'X-Request-Id': 'R' }));
    const client = createClient({ baseUrl: url });
    const { data, etag, requestId } = await client.allocations.get(42).withResponse();
    expect({ data, etag, requestId }).toEqual({ data: allocation, etag: '"7"', requestId: 'R' });
    await client.allocations.update(42, { name: 'x' }, { ifMatch: etag });
    expect(received[1]?.headers['if-match']).toBe('"7"');
  });

  test('have the types of the contract', () => {
    const client = createClient();
    expectTypeOf(client.allocations.get).returns.toEqualTypeOf<Result<AllocationDetail>>();
    expectTypeOf(client.allocations.list).returns.toEqualTypeOf<Result<Allocation[]>>();
    expectTypeOf(client.devices.all).returns.toEqualTypeOf<AsyncIterableIterator<Device>>();
    expectTypeOf(client.auth.logout).returns.toEqualTypeOf<Result<undefined>>();
    expectTypeOf(client.allocations.get).parameter(0).toEqualTypeOf<number>();
    expectTypeOf(client.enrollment.pending).parameter(0).toEqualTypeOf<{ userCode?: string; tag?: string } | undefined>();
    // @ts-expect-error: a required query cannot be left out
    const missing = (): unknown => client.enrollment.poll();
    // @ts-expect-error: the protocol does not exist
    const wrong = (): unknown => client.allocations.create({ protocol: 'sctp', localPort: 1 });
    expect([missing, wrong]).toHaveLength(2);
  });
});

describe('pages', () => {
  test('are read as far as the caller goes', async () => {
    const { url, received } = await serve(({ url }, response) => {
      const after = Number(new URL(url, 'http://x').searchParams.get('after') ?? 9);
      const link = after > 3 ? { Link: `</api/tunnel/allocations?after=${after - 2}&limit=2>; rel="next"` } : undefined;
      json(response, 200, [{ id: after - 1 }, { id: after - 2 }], link);
    });
    const client = createClient({ baseUrl: url });
    const ids: number[] = [];
    for await (const { id } of client.allocations.all({ limit: 2 })) ids.push(id);
    expect(ids).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
    expect(received).toHaveLength(4);

    for await (const { id } of client.allocations.all()) if (id === 8) break;
    expect(received).toHaveLength(5);

    const { next } = await client.allocations.list().withResponse();
    expect(await client.allocations.list({}, { page: next })).toEqual([{ id: 6 }, { id: 5 }]);
  });

  test.each(['//elsewhere.example/', 'https://elsewhere.example/', '/\\elsewhere.example/', '@elsewhere.example'])(
    'at %s are refused: the credential would go there',
    async (next) => {
      const { url, received } = await serve((_, response) => json(response, 200, [], { Link: `<${next}>; rel="next"` }));
      const client = createClient({ baseUrl: url, credentials: 'secret' });
      await expect((async () => {
        for await (const _ of client.allocations.all());
      })()).rejects.toThrow('not at the panel');
      await expect(client.allocations.list({}, { page: next })).rejects.toThrow('not at the panel');
      expect(received).toHaveLength(1);
    },
  );
});

describe('credentials', () => {
  test('of a function are asked for before each request, and again when one is refused', async () => {
    const { url, received } = await serve(({ headers }, response) =>
      headers.authorization === 'Bearer new'
        ? json(response, 200, {})
        : json(response, 401, { error: 'unauthorized', message: 'no', requestId: 'R' }),
    );
    const asked: unknown[] = [];
    let current = 'old';
    const client = createClient({
      baseUrl: url,
      credentials: async ({ refused }) => {
        asked.push(refused);
        if (refused) current = 'new';
        return current;
      },
    });
    // A POST too: the panel has done nothing.
    await client.devices.regenerateToken('x');
    await client.account.get();
    expect(asked).toEqual([undefined, 'old', undefined]);
    expect(received).toHaveLength(3);
  });

  test('that are refused again, or have not changed, give the error', async () => {
    const { url, received } = await serve((_, response) => json(response, 401, { error: 'unauthorized', message: 'no', requestId: 'R' }));
    await expect(createClient({ baseUrl: url, credentials: () => 'same' }).account.get()).rejects.toMatchObject({ code: 'unauthorized' });
    expect(received).toHaveLength(1);
    let n = 0;
    await expect(createClient({ baseUrl: url, credentials: () => `${n++}` }).account.get()).rejects.toMatchObject({ code: 'unauthorized' });
    expect(received).toHaveLength(3);
  });

  test.each([
    ['a-token', 'omit'],
    ['same-origin', 'same-origin'],
    ['include', 'include'],
    [undefined, 'same-origin'],
  ] as const)('%s use the cookie mode %s', async (credentials, mode) => {
    const modes: unknown[] = [];
    const fake: typeof fetch = async (_, init) => {
      modes.push(init?.credentials);
      return Response.json({});
    };
    await createClient({ credentials, fetch: fake }).account.get();
    expect(modes).toEqual([mode]);
  });
});
