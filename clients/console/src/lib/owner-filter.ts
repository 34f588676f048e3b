/** The owner in a page's address, `user-ID` or `organisation-ID`, as the panel's lists take it. */
export function ownerQuery(parameters: URLSearchParams): { ownerId?: number; organisationId?: number } {
  const [, kind, id] = /^(user|organisation)-([1-9]\d{0,15})$/.exec(parameters.get('owner') ?? '') ?? [];
  if (!kind) return {};
  return kind === 'user' ? { ownerId: Number(id) } : { organisationId: Number(id) };
}

/**
 * Returns the query of an address that names an owner as the panel does, rewritten to the one
 * filter that the pages have for both kinds of owners; undefined if it names none that way.
 */
export function withOwner(parameters: URLSearchParams): string | undefined {
  const user = parameters.get('ownerId') ?? parameters.get('userId');
  const organisation = parameters.get('organisationId');
  if (user === null && organisation === null) return undefined;
  const rewritten = new URLSearchParams(parameters);
  for (const name of ['ownerId', 'userId', 'organisationId']) rewritten.delete(name);
  rewritten.set('owner', user === null ? `organisation-${organisation}` : `user-${user}`);
  return String(rewritten);
}
