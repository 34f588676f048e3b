/** The states by which the list can be filtered, as the panel takes them. */
export const stateFilters = {
  open: { status: 'listening' },
  noGame: { status: 'listening', target: 'down' },
  offline: { status: 'offline' },
  failed: { status: 'failed' },
  paused: { status: 'paused' },
  pending: { status: 'pending' },
  draining: { status: 'draining' },
} as const;
