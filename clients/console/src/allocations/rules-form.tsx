import type { AllocationDetail, Schemas } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Check, Form, Input, numberOf, Select, TextArea, useNotices } from '../ui/index.js';
import { Overtaken, useEditing, type Version } from './editing.js';
import { errorTexts } from './error-texts.js';
import { LimitInput } from './limit-input.js';
import { addressesOf, bandwidthFields, countFields, enteredOf, fieldsFor, originOf, shownOf, type Layers, type LimitField } from './rules-fields.js';
import { useLimitText } from './rules-limit.js';
import { rulesTexts } from './rules-texts.js';

type Options = Schemas['AllocationOptions'];

interface RulesFormProps {
  version: Version;
  /** The allocation as it is now: the rules in effect follow the organisation's and the panel's. */
  current: AllocationDetail;
  layers: Layers;
}

/** Changes the options and rules of a port. */
export function RulesForm({ version, current, layers }: RulesFormProps): ReactNode {
  const t = useText(rulesTexts);
  const errors = useText(errorTexts);
  const { notify } = useNotices();
  const editing = useEditing(version);
  const { allocation } = editing;
  const { options, protocol } = allocation;

  return (
    <Form
      submit={t.save}
      wide
      messages={errors.rules}
      onSubmit={async (data) => {
        const changed = changesOf(allocation, data);
        if (Object.keys(changed).length > 0) await editing.save({ options: changed });
        notify(t.saved);
      }}
    >
      <div className="allocations-sheets" key={editing.saved}>
        <section className="sheet stack" aria-labelledby="rules-who">
          <h2 id="rules-who">{t.who}</h2>
          <Addresses name="allow" options={options} />
          <Addresses name="deny" options={options} />
        </section>
        <section className="sheet stack" aria-labelledby="rules-how-many">
          <h2 id="rules-how-many">{t.howMany}</h2>
          <Limits fields={fieldsFor(countFields, protocol)} options={options} current={current} layers={layers} />
        </section>
        <section className="sheet stack" aria-labelledby="rules-bandwidth">
          <h2 id="rules-bandwidth">{t.bandwidth}</h2>
          <p className="small faint">{t.bandwidthText}</p>
          <Limits fields={bandwidthFields} options={options} current={current} layers={layers} />
        </section>
        <section className="sheet stack" aria-labelledby="rules-forwarding">
          <h2 id="rules-forwarding">{t.forwarding}</h2>
          <Select name="proxyProtocol" label={t.labels.proxyProtocol} hint={t.hints.proxyProtocol} defaultValue={options.proxyProtocol ?? 'none'}>
            {(protocol === 'tcp' ? (['none', 'v1', 'v2'] as const) : (['none', 'v2'] as const)).map((value) => (
              <option key={value} value={value}>
                {t.proxyProtocols[value]}
              </option>
            ))}
          </Select>
          <Check name="playerAddresses" label={t.labels.playerAddresses} hint={t.hints.playerAddresses} defaultChecked={options.playerAddresses ?? true} />
          {protocol === 'udp' && (
            <Input name="udpIdleSeconds" label={t.labels.udpIdleSeconds} hint={t.hints.udpIdleSeconds} type="number" min={5} max={3600} required defaultValue={options.udpIdleSeconds ?? 60} />
          )}
        </section>
      </div>
      <Overtaken editing={editing} labels={t.labels} />
    </Form>
  );
}

function Addresses({ name, options }: { name: 'allow' | 'deny'; options: Options }): ReactNode {
  const t = useText(rulesTexts);
  return <TextArea name={name} label={t.labels[name]} hint={t.hints[name]} rows={4} spellCheck={false} autoComplete="off" defaultValue={(options[name] ?? []).join('\n')} />;
}

function Limits({ fields, options, current, layers }: { fields: readonly LimitField[]; options: Options; current: AllocationDetail; layers: Layers }): ReactNode {
  const t = useText(rulesTexts);
  const limitText = useLimitText();
  return fields.map((field) => {
    const { name, bandwidth, max } = field;
    const effective = current.rules[name];
    const origin = originOf(name, current, layers);
    return (
      <LimitInput
        key={name}
        field={field}
        value={options[name]}
        label={bandwidth ? t.inMegabits(t.labels[name]) : t.labels[name]}
        placeholder={effective === undefined || effective >= max ? t.unbounded : String(shownOf(field, effective))}
        hint={
          <>
            {t.hints[name]} {t.now(limitText(field, effective))}
            {origin !== 'none' && ` (${t.origins[origin]})`}
          </>
        }
      />
    );
  });
}

/** The options that the form has changed; null takes a rule away. */
function changesOf({ options, protocol }: AllocationDetail, data: FormData): Options {
  const changed: Options = {};
  for (const name of ['allow', 'deny'] as const) {
    const addresses = addressesOf(String(data.get(name) ?? ''));
    if (addresses.join() !== (options[name] ?? []).join()) changed[name] = addresses.length > 0 ? addresses : null;
  }
  for (const field of fieldsFor([...countFields, ...bandwidthFields], protocol)) {
    const value = enteredOf(field, String(data.get(field.name) ?? ''));
    if (value !== (options[field.name] ?? null)) changed[field.name] = value;
  }
  const proxyProtocol = String(data.get('proxyProtocol')) as Schemas['ProxyProtocol'];
  if (proxyProtocol !== options.proxyProtocol) changed.proxyProtocol = proxyProtocol;
  const playerAddresses = data.has('playerAddresses');
  if (playerAddresses !== options.playerAddresses) changed.playerAddresses = playerAddresses;
  const idle = numberOf(data, 'udpIdleSeconds');
  if (idle !== null && idle !== options.udpIdleSeconds) changed.udpIdleSeconds = idle;
  return changed;
}
