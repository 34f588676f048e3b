/** How often a port has refused players and dropped datagrams for one reason. */
export interface Refusal {
  reason: string;
  players: number;
  datagrams: number;
}

/** The reasons that have occurred, in the order of `known` so that rows keep their places, then any that are new. */
export function refusalsOf(players: Record<string, number>, datagrams: Record<string, number>, known: readonly string[]): Refusal[] {
  const reasons = new Set([...known, ...Object.keys(players), ...Object.keys(datagrams)]);
  return [...reasons]
    .map((reason) => ({ reason, players: players[reason] ?? 0, datagrams: datagrams[reason] ?? 0 }))
    .filter(({ players, datagrams }) => players + datagrams > 0);
}
