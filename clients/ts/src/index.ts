/**
 * A client of EcliTunnel's API.
 *
 * @packageDocumentation
 */
import type { components } from './generated/contract.js';

export { createClient, type TunnelClient } from './client.js';
export {
  isCode,
  NetworkError,
  ResponseError,
  TimeoutError,
  TunnelError,
  type AnyErrorCode,
  type ErrorCode,
  type Problem,
  type TunnelErrorOf,
} from './errors.js';
export type { EventStream, LiveStatus, Positioned, SubscribeOptions } from './events.js';
export type { TunnelEvent, TunnelEventTopic } from './event-types.js';
export type { ClientOptions, Credentials } from './transport.js';
export type { FullResult, Methods, RequestOptions, Result } from './types.js';
export type { components, operations, paths } from './generated/contract.js';

/** The schemas of the contract by name: `Schemas['Allocation']`. */
export type Schemas = components['schemas'];
export type Allocation = Schemas['Allocation'];
export type AllocationDetail = Schemas['AllocationDetail'];
export type Connection = Schemas['Connection'];
export type Device = Schemas['Device'];
export type LiveUsage = Schemas['LiveUsage'];
export type Organisation = Schemas['Organisation'];
export type PendingEnrollment = Schemas['PendingEnrollment'];
export type Usage = Schemas['Usage'];
export type Webhook = Schemas['Webhook'];
export type WebhookDelivery = Schemas['WebhookDelivery'];
