import type { Schemas } from '@eclitunnel/sdk';
import { bandwidthFields, countFields, enteredOf, type Limit, type LimitField } from '../allocations/rules-fields.js';

type Limits = Schemas['RuleLimits'];

const fields: readonly LimitField[] = [...countFields, ...bandwidthFields];

/** The rules that a form has changed, as the panel takes them; null takes a rule away. */
export function changedRules(before: Limits, data: FormData): Limits {
  const changes: Limits = {};
  for (const field of fields) {
    const value = enteredOf(field, String(data.get(field.name) ?? ''));
    if (value !== (before[field.name] ?? null)) changes[field.name] = value;
  }
  return changes;
}

/** The rules in which two states differ. */
export function differingRules(before: Limits, now: Limits): LimitField[] {
  return fields.filter(({ name }) => (before[name] ?? null) !== (now[name] ?? null));
}

/** What the panel says of a rule where an organisation says nothing: at most its ceiling. */
export function panelsRule({ defaults, builtIn, ceiling }: Pick<Schemas['RuleSettings'], 'defaults' | 'builtIn' | 'ceiling'>, name: Limit): number | undefined {
  const wanted = defaults[name] ?? builtIn[name] ?? undefined;
  const most = ceiling[name] ?? undefined;
  return wanted === undefined ? most : most === undefined ? wanted : Math.min(wanted, most);
}
