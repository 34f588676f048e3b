import type { components } from './generated/contract.js';

/** What the stream of events tells, by `type`. A newer panel may send other types: let them pass. */
export type TunnelEvent = components['schemas']['LiveEvent'];

/** What events can be asked for: the beginnings of their types. */
export type TunnelEventTopic = components['schemas']['EventKind'];
