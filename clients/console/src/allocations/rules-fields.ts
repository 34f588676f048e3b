import type { AllocationDetail, Schemas } from '@eclitunnel/sdk';

export type Limit = keyof Schemas['RuleLimits'];

export interface LimitField {
  name: Limit;
  /** Bandwidths are entered in Mbit/s. */
  bandwidth?: boolean;
  /** The protocol that it is about; both if it is absent. */
  protocol?: Schemas['Protocol'];
  /** The smallest value, and the largest, which lifts the bound. */
  min: number;
  max: number;
}

const players = { min: 1, max: 100_000 };
const bandwidth = { bandwidth: true, min: 8000, max: 100_000_000_000 };

/** The rules that are numbers, in the order of the page. */
export const countFields: readonly LimitField[] = [
  { name: 'maxPlayers', ...players },
  { name: 'maxPlayersPerSource', protocol: 'tcp', ...players },
  { name: 'maxFlowsPerSource', protocol: 'udp', ...players },
  { name: 'connectionsPerSecond', protocol: 'tcp', ...players },
  { name: 'connectionsPerSecondPerSource', protocol: 'tcp', ...players },
  { name: 'datagramsPerSecondPerSource', protocol: 'udp', min: 1, max: 1_000_000 },
];

export const bandwidthFields: readonly LimitField[] = [
  { name: 'downloadBitsPerSecond', ...bandwidth },
  { name: 'uploadBitsPerSecond', ...bandwidth },
  { name: 'playerDownloadBitsPerSecond', ...bandwidth },
  { name: 'playerUploadBitsPerSecond', ...bandwidth },
];

/** The fields that are about the protocol of an allocation. */
export function fieldsFor(fields: readonly LimitField[], protocol: Schemas['Protocol']): LimitField[] {
  return fields.filter((field) => !field.protocol || field.protocol === protocol);
}

/** Bits per second in a megabit per second. */
const mega = 1_000_000;

/** The value as it is entered. */
export function shownOf({ bandwidth }: LimitField, value: number): number {
  return bandwidth ? value / mega : value;
}

/** The value that was entered, as the panel takes it; null if the field is empty. */
export function enteredOf({ bandwidth }: LimitField, text: string): number | null {
  const value = text.trim() === '' ? null : Number(text);
  return value !== null && bandwidth ? Math.round(value * mega) : value;
}

/** The addresses and prefixes of a text: each on a line of its own, or with commas between them. */
export function addressesOf(text: string): string[] {
  return [...new Set(text.split(/[\s,;]+/).filter(Boolean))];
}

/** Whose rule is in effect. */
export type Origin = 'own' | 'organisation' | 'site' | 'builtIn' | 'panel' | 'ceiling' | 'none';

/** What is known of the rules above an allocation's own; what the user may not see is undefined. */
export interface Layers {
  organisation: Schemas['RuleLimits'] | undefined;
  site: Schemas['RuleSettings'] | undefined;
}

/**
 * Tells where a rule in effect comes from. Each is the allocation's own, or else the
 * organisation's, or else the panel's, and at most the panel's ceiling (docs/rules.md).
 */
export function originOf(name: Limit, { options, rules }: Pick<AllocationDetail, 'options' | 'rules'>, { organisation, site }: Layers): Origin {
  const effective = rules[name];
  if (effective === undefined) return 'none';
  const own = options[name] ?? undefined;
  const shared = organisation?.[name] ?? undefined;
  const wanted = own ?? shared ?? site?.defaults[name] ?? site?.builtIn[name] ?? undefined;
  if (wanted !== undefined && effective < wanted) return 'ceiling';
  if (own !== undefined) return 'own';
  if (shared !== undefined) return 'organisation';
  if (!site) return 'panel';
  if (wanted === undefined) return 'ceiling';
  return site.defaults[name] === undefined || site.defaults[name] === null ? 'builtIn' : 'site';
}
