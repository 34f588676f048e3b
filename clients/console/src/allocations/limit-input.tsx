import type { ReactNode } from 'react';
import { Input } from '../ui/index.js';
import { shownOf, type LimitField } from './rules-fields.js';

interface LimitInputProps {
  field: LimitField;
  /** The rule's own value, if it has one. */
  value: number | null | undefined;
  label: string;
  /** What stands in the field while the rule has no value of its own. */
  placeholder: string;
  hint: ReactNode;
}

/** A field for a rule that limits a number or a rate. */
export function LimitInput({ field, value, ...rest }: LimitInputProps): ReactNode {
  const { name, bandwidth, min, max } = field;
  return (
    <Input
      name={name}
      type="number"
      inputMode={bandwidth ? 'decimal' : 'numeric'}
      step={bandwidth ? 'any' : 1}
      min={shownOf(field, min)}
      max={shownOf(field, max)}
      defaultValue={value === undefined || value === null ? '' : shownOf(field, value)}
      {...rest}
    />
  );
}
