import type { ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Check, Input, Select } from '../ui/index.js';
import { isRate, quotaNames, ruleNames, usageNames, type RuleName, type Values } from './settings-fields.js';
import { texts } from './settings-texts.js';

interface FieldsProps {
  values: Values;
  builtIn: Schemas['RuleLimits'];
  onChange(name: string, value: string): void;
}

const days = { minuteDays: [1, 31], hourDays: [2, 731], dayDays: [2, 3653] } as const;

/** The fields of all settings, by subject. */
export function Fields({ values, builtIn, onChange }: FieldsProps): ReactNode {
  const t = useText(texts);
  const text = (name: string) => ({ name, label: t.names[name], hint: t.hints[name], value: values[name] ?? '', onChange: (event: { target: { value: string } }) => onChange(name, event.target.value) });
  const check = (name: string) => <Check name={name} label={t.names[name]} hint={t.hints[name]} checked={values[name] === 'true'} onChange={(event) => onChange(name, String(event.target.checked))} />;
  return (
    <>
      <div className="columns">
        <Section title={t.features}>{check('features.tunnels')}</Section>
        <Section title={t.organisations}>
          <Select {...text('organisations.creators')}>
            <option value="admins">{t.creators.admins}</option>
            <option value="everyone">{t.creators.everyone}</option>
          </Select>
        </Section>
      </div>
      <Section title={t.enrollment}>
        {check('enrollment.anonymous')}
        {check('enrollment.ownersApprove')}
      </Section>
      <Section title={t.quota} about={t.quotaAbout}>
        <div className="site-three">
          {quotaNames.map((name) => (
            <Input key={name} type="number" min={0} max={1_000_000_000} step={1} placeholder={t.unlimited} {...text(`quota.${name}`)} />
          ))}
        </div>
      </Section>
      <Section title={t.usage} about={t.usageAbout}>
        <div className="site-three">
          {usageNames.map((name) => (
            <Input key={name} type="number" required min={days[name][0]} max={days[name][1]} step={1} {...text(`usage.${name}`)} />
          ))}
        </div>
      </Section>
      <Section title={t.rules} about={t.rulesAbout}>
        {ruleNames.map((name) => (
          <Rule key={name} name={name} values={values} builtIn={builtIn} onChange={onChange} />
        ))}
      </Section>
    </>
  );
}

function Section({ title, about, children }: { title: string; about?: string; children: ReactNode }): ReactNode {
  return (
    <section className="sheet stack">
      <div>
        <h2>{title}</h2>
        {about && <p className="faint">{about}</p>}
      </div>
      {children}
    </section>
  );
}

function Rule({ name, values, builtIn, onChange }: { name: RuleName } & FieldsProps): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const rate = isRate(name);
  const own = builtIn[name];
  const preset = own === undefined || own === null ? t.unlimited : rate ? format.bits(own) : format.number(own);
  const limits = rate ? { min: 0.008, max: 100_000, step: 'any' } : { min: 1, max: name === 'datagramsPerSecondPerSource' ? 1_000_000 : 100_000, step: 1 };
  return (
    <fieldset className="site-rule">
      <legend>{t.ruleNames[name]}</legend>
      <div className="small faint">
        <p>{t.ruleHints[name]}</p>
        <p>{t.builtIn(preset)}</p>
      </div>
      {(['defaults', 'ceiling'] as const).map((part) => {
        const path = `rules.${part}.${name}`;
        const label = part === 'defaults' ? t.default : t.ceiling;
        return (
          <Input
            key={part}
            name={path}
            label={rate ? `${label} (${t.mbit})` : label}
            type="number"
            {...limits}
            placeholder={part === 'defaults' ? preset : t.unlimited}
            value={values[path] ?? ''}
            onChange={(event) => onChange(path, event.target.value)}
          />
        );
      })}
    </fieldset>
  );
}
