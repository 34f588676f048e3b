import { describe, expect, test } from 'vitest';
import { ownerQuery, withOwner } from '../src/lib/owner-filter.js';

describe('the owner in an address', () => {
  test('is a person or an organisation', () => {
    expect(ownerQuery(new URLSearchParams('owner=user-7'))).toEqual({ ownerId: 7 });
    expect(ownerQuery(new URLSearchParams('owner=organisation-3&q=x'))).toEqual({ organisationId: 3 });
  });

  test.each(['', 'owner=', 'owner=user', 'owner=user-0', 'owner=user-x', 'owner=device-3'])('is nobody in %j', (query) => {
    expect(ownerQuery(new URLSearchParams(query))).toEqual({});
  });

  test('may be named as the panel does it', () => {
    expect(withOwner(new URLSearchParams('organisationId=3&q=x'))).toBe('q=x&owner=organisation-3');
    expect(withOwner(new URLSearchParams('userId=7'))).toBe('owner=user-7');
    expect(withOwner(new URLSearchParams('ownerId=7'))).toBe('owner=user-7');
    expect(withOwner(new URLSearchParams('owner=user-7'))).toBeUndefined();
  });
});
