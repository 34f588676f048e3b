import { useQuery, useQueryClient } from '@tanstack/react-query';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { LimitInput } from '../allocations/limit-input.js';
import { bandwidthFields, countFields, type LimitField } from '../allocations/rules-fields.js';
import { useLimitText } from '../allocations/rules-limit.js';
import { rulesTexts } from '../allocations/rules-texts.js';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useSiteRules } from '../lib/rules.js';
import { useIsAdmin } from '../session/session.js';
import { Form, Loaded, Note, useNotices } from '../ui/index.js';
import { changedRules, differingRules, panelsRule } from './rules-changes.js';
import { texts } from './texts.js';

type Limits = Schemas['RuleLimits'];

interface Version {
  rules: Limits;
  etag: string | undefined;
}

async function readVersion(id: number, signal?: AbortSignal): Promise<Version> {
  const { data, etag } = await client.organisations.rules(id, { signal }).withResponse();
  return { rules: data, etag };
}

/** The rules that all ports of an organisation share. */
export function Rules({ id, may }: { id: number; may: boolean }): ReactNode {
  const t = useText(texts);
  // What is being edited does not change under the person's hands.
  const version = useQuery({
    queryKey: keys.edited('organisationRules', id),
    queryFn: ({ signal }) => readVersion(id, signal),
    staleTime: may ? Infinity : 10_000,
    gcTime: 0,
    refetchOnReconnect: !may,
  });
  return (
    <section className="stack" aria-label={t.tabs.rules}>
      <div>
        <h2>{t.tabs.rules}</h2>
        <p className="faint">{t.rulesAbout}</p>
      </div>
      <Loaded query={version}>{(version) => (may ? <Editor id={id} version={version} /> : <Shown rules={version.rules} />)}</Loaded>
    </section>
  );
}

/** The name of a rule, with its protocol where another one has a rule of that name. */
function useLabel(): (field: LimitField) => string {
  const t = useText(rulesTexts);
  return ({ name, bandwidth, protocol }) => {
    const label = protocol ? `${t.labels[name]} (${protocol.toUpperCase()})` : t.labels[name];
    return bandwidth ? t.inMegabits(label) : label;
  };
}

function Editor({ id, version }: { id: number; version: Version }): ReactNode {
  const t = useText(texts);
  const rule = useText(rulesTexts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  const [{ first, last, saved }, setState] = useState({ first: version, last: version, saved: 0 });

  async function save(data: FormData): Promise<void> {
    const changes = changedRules(first.rules, data);
    if (Object.keys(changes).length > 0) {
      try {
        const result = await client.organisations.updateRules(id, changes, { ifMatch: last.etag }).withResponse();
        const now = { rules: result.data, etag: result.etag };
        setState({ first: now, last: now, saved: saved + 1 });
        queries.setQueryData(keys.edited('organisationRules', id), now);
        void queries.invalidateQueries({ queryKey: keys.organisationRules(id) });
      } catch (error) {
        if (isCode(error, 'precondition_failed')) {
          const now = await readVersion(id);
          setState((state) => ({ ...state, last: now }));
        }
        throw error;
      }
    }
    notify(rule.saved);
  }

  return (
    <Form wide submit={rule.save} messages={{ precondition_failed: t.notSaved }} onSubmit={save}>
      <div className="columns" key={saved}>
        <section className="sheet stack organisation-sheet">
          <h3>{rule.howMany}</h3>
          <Fields fields={countFields} rules={first.rules} />
        </section>
        <section className="sheet stack organisation-sheet">
          <h3>{rule.bandwidth}</h3>
          <p className="small faint">{t.bandwidthText}</p>
          <Fields fields={bandwidthFields} rules={first.rules} />
        </section>
      </div>
      {last !== first && <Overtaken before={first.rules} now={last.rules} />}
    </Form>
  );
}

function Fields({ fields, rules }: { fields: readonly LimitField[]; rules: Limits }): ReactNode {
  const t = useText(texts);
  const rule = useText(rulesTexts);
  const label = useLabel();
  const limitText = useLimitText();
  const admin = useIsAdmin();
  const site = useSiteRules(admin);
  return fields.map((field) => {
    const { name } = field;
    return (
      <LimitInput
        key={name}
        field={field}
        value={rules[name]}
        label={label(field)}
        placeholder={t.panels}
        hint={
          <>
            {rule.hints[name]} {site && t.panelsValue(limitText(field, panelsRule(site, name)))}
          </>
        }
      />
    );
  });
}

/** The rules for who may not change them: those that are set. */
function Shown({ rules }: { rules: Limits }): ReactNode {
  const t = useText(texts);
  const label = useLabel();
  const limitText = useLimitText();
  const set = [...countFields, ...bandwidthFields].filter(({ name }) => rules[name] !== undefined && rules[name] !== null);
  return (
    <>
      <Note>{t.rulesMayNot}</Note>
      {set.length === 0 ? (
        <p>{t.noRules}</p>
      ) : (
        <dl className="facts sheet">
          {set.map((field) => (
            <div className="organisation-fact" key={field.name}>
              <dt>{label({ ...field, bandwidth: false })}</dt>
              <dd>{limitText(field, rules[field.name] ?? undefined)}</dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}

/** What somebody else has changed while the form was open. */
function Overtaken({ before, now }: { before: Limits; now: Limits }): ReactNode {
  const t = useText(texts);
  const label = useLabel();
  const limitText = useLimitText();
  const text = (field: LimitField, rules: Limits): string => {
    const value = rules[field.name];
    return value === undefined || value === null ? t.panels : limitText(field, value);
  };
  return (
    <Note tone="warn" live>
      <p>{t.overtaken}</p>
      <ul>
        {differingRules(before, now).map((field) => (
          <li key={field.name}>
            {label({ ...field, bandwidth: false })}: {text(field, before)} → <strong>{text(field, now)}</strong>
          </li>
        ))}
      </ul>
      <p>{t.overtakenText}</p>
    </Note>
  );
}
