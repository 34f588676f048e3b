import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import type { LimitField } from './rules-fields.js';
import { rulesTexts } from './rules-texts.js';

/** Returns a function that writes the value of a rule; its largest value lifts the bound. */
export function useLimitText(): (field: LimitField, value: number | undefined) => string {
  const t = useText(rulesTexts);
  const format = useFormat();
  return ({ bandwidth, max }, value) => (value === undefined || value >= max ? t.unbounded : bandwidth ? format.bits(value) : format.number(value));
}
