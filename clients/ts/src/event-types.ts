import type { components } from './generated/contract.js';

type Device = components['schemas']['Device'];
type Allocation = components['schemas']['Allocation'];

/** A player's connection through an allocation. */
export interface Connection {
  id: string;
  allocationId: number;
  deviceId: string;
  serverId: string;
  protocol: components['schemas']['Protocol'];
  sourceAddress: string;
  sourcePort: number;
  since: string;
  downloadBytes: number;
  uploadBytes: number;
  playerRoundTripMs: number | null;
  tunnelRoundTripMs: number | null;
  asOf: string;
}

/** What an allocation has carried since the last such event. */
export interface UsageDelta {
  allocationId: number;
  players: number;
  downloadBytes: number;
  uploadBytes: number;
  joins: number;
  seconds: number;
}

interface At {
  /** When it happened (ISO 8601). */
  at: string;
}

/** What the stream of events tells, by `type`. A newer panel may send other types: let them pass. */
export type TunnelEvent = At &
  (
    | { type: 'ready' }
    | { type: 'resync' }
    | { type: 'device.created' | 'device.updated'; deviceId: string; device: Device }
    | { type: 'device.deleted'; deviceId: string }
    | { type: 'allocation.created' | 'allocation.updated'; allocationId: number; deviceId: string; allocation: Allocation }
    | { type: 'allocation.deleted'; allocationId: number; deviceId: string }
    | { type: 'connection.opened' | 'connection.closed'; connection: Connection }
    | { type: 'usage'; usage: UsageDelta[] }
  );

/** What events can be asked for. */
export type TunnelEventTopic = 'device' | 'allocation' | 'connection' | 'usage';
