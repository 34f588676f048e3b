import { expect, test } from 'vitest';
import { hostWarningOf } from '../src/lib/host-warning.js';

test('warnings about public hosts are understood as the panel words them', () => {
  expect(hostWarningOf("the public host fra1.example.com has not existed since 2026-12-01T04:58:22Z, according to the panel's DNS resolver")).toEqual({
    kind: 'gone', host: 'fra1.example.com', since: '2026-12-01T04:58:22Z',
  });
  expect(hostWarningOf('players without IPv6 cannot join at 2001:db8::7; set an IPv4 address, or a name that has one, as the public host')).toEqual({ kind: 'onlyIPv6', host: '2001:db8::7' });
});

test('other warnings are left as they are', () => {
  expect(hostWarningOf('the moon is full')).toBeUndefined();
});
