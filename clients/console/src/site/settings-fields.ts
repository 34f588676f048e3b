import type { Schemas } from '@eclitunnel/sdk';

export type Settings = Schemas['Settings'];
export type Patch = Schemas['SettingsPatch'];

export const quotaNames = ['devices', 'allocations', 'portsOutsideRange'] as const;
export const usageNames = ['minuteDays', 'hourDays', 'dayDays'] as const;
const countRules = ['maxPlayers', 'maxPlayersPerSource', 'maxFlowsPerSource', 'connectionsPerSecond', 'connectionsPerSecondPerSource', 'datagramsPerSecondPerSource'] as const;
const rateRules = ['downloadBitsPerSecond', 'uploadBitsPerSecond', 'playerDownloadBitsPerSecond', 'playerUploadBitsPerSecond'] as const;
export const ruleNames = [...countRules, ...rateRules] as const;
export type RuleName = (typeof ruleNames)[number];

export function isRate(name: string): boolean {
  return (rateRules as readonly string[]).includes(name);
}

/** The values of a form by the names of the request's fields, as texts; empty is none. */
export type Values = Readonly<Record<string, string>>;

const megabit = 1_000_000;

/** The value of a rule as the form has it: rates are in Mbit/s there. */
function ruleText(name: string, value: number | null | undefined): string {
  return value === null || value === undefined ? '' : String(isRate(name) ? value / megabit : value);
}

/** The settings as the form has them. */
export function valuesOf(settings: Settings): Values {
  const values: Record<string, string> = {
    'features.tunnels': String(settings.features.tunnels),
    'enrollment.anonymous': String(settings.enrollment.anonymous),
    'enrollment.ownersApprove': String(settings.enrollment.ownersApprove),
    'organisations.creators': settings.organisations.creators,
  };
  for (const name of quotaNames) values[`quota.${name}`] = settings.quota[name]?.toString() ?? '';
  for (const name of usageNames) values[`usage.${name}`] = String(settings.usage[name]);
  for (const part of ['defaults', 'ceiling'] as const) {
    for (const name of ruleNames) values[`rules.${part}.${name}`] = ruleText(name, settings.rules[part][name]);
  }
  return values;
}

/** What the request says for a field of the form. */
function wireValue(name: string, text: string): string | number | boolean | null {
  if (text === 'true' || text === 'false') return text === 'true';
  if (name === 'organisations.creators') return text;
  if (text.trim() === '') return null;
  return isRate(name.slice(name.lastIndexOf('.') + 1)) ? Math.round(Number(text) * megabit) : Number(text);
}

/** The request that makes these changes. */
export function patchOf(changes: Values): Patch {
  const patch: Record<string, unknown> = {};
  for (const [path, text] of Object.entries(changes)) {
    const names = path.split('.');
    const last = names.pop() ?? path;
    let at = patch;
    for (const name of names) at = (at[name] ??= {}) as Record<string, unknown>;
    at[last] = wireValue(path, text);
  }
  return patch as Patch;
}

/** What a form has changed, and from which values on. */
export interface Draft {
  /** The values that were there when the first change was made, or when others' changes were last shown. */
  base: Values;
  changes: Values;
}

/** Returns the draft with a field changed; one that is as it was before is no change. */
export function edited(draft: Draft | undefined, now: Values, name: string, value: string): Draft | undefined {
  const changes = { ...draft?.changes, [name]: value };
  if (value === now[name]) delete changes[name];
  return Object.keys(changes).length === 0 ? undefined : { base: draft?.base ?? now, changes };
}

/** The fields that somebody else has changed since the draft was begun. */
export function changedMeanwhile(draft: Draft, now: Values): readonly string[] {
  return Object.keys(now).filter((name) => now[name] !== draft.base[name] && now[name] !== draft.changes[name]);
}
