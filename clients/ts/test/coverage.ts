// Held by the compiler: every operation of the contract is a method of the client, under
// an entry with the right argument, or is named here with the reason why not.
import type { paths } from '../src/generated/contract.js';
import type { resources } from '../src/resources.js';

/** The operations without a method. */
type Elsewhere =
  // A WebSocket of agents.
  | 'GET /api/tunnel/ws'
  // Pages that a browser visits: they redirect to an identity provider and back.
  | 'GET /api/auth/providers/{id}/login query'
  | 'GET /api/auth/providers/{id}/callback query'
  // The contract for people: `service.openapi` has it in JSON.
  | 'GET /openapi.yaml'
  // `client.events.subscribe`.
  | 'GET /api/events query';

type Verbs = { get: 'GET'; post: 'POST'; put: 'PUT'; patch: 'PATCH'; delete: 'DELETE' };

type Present<O, K extends string> = O extends { [P in K]?: infer T } ? ([Exclude<T, undefined>] extends [never] ? false : true) : false;

type ArgumentOf<O> =
  Present<O, 'requestBody'> extends true
    ? ' body'
    : O extends { parameters: infer P }
      ? Present<P, 'query'> extends true
        ? ' query'
        : ''
      : '';

type Contract = {
  [P in keyof paths & string]: {
    [V in keyof Verbs]: [Exclude<paths[P][V], undefined>] extends [never] ? never : `${Verbs[V]} ${P}${ArgumentOf<paths[P][V]>}`;
  }[keyof Verbs];
}[keyof paths & string];

/** The lists that have pages, as entries that read all of them. */
type Paged = {
  [P in keyof paths & string]: paths[P] extends { get: { responses: { 200: { headers: infer H } } } }
    ? 'Link' extends keyof { [K in keyof H as string extends K ? never : K]: H[K] }
      ? `EACH ${P}${ArgumentOf<paths[P]['get']>}`
      : never
    : never;
}[keyof paths & string];

type Table = { [R in keyof typeof resources]: (typeof resources)[R][keyof (typeof resources)[R]] }[keyof typeof resources];

/** Compiles only for `never`: the compiler's message names what is missing or too much. */
type Nothing<T extends never> = T;

export type Missing = Nothing<Exclude<Contract | Paged, Table | Elsewhere>>;
export type Unknown = Nothing<Exclude<Table, Contract | Paged>>;
