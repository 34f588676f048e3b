import { useMemo, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { useIsAdmin } from '../session/session.js';
import { Button, Form, Input, Select, textOf } from '../ui/index.js';
import { texts } from './audit-texts.js';
import type { AuditTrailProps } from './audit.js';
import { given, idOf, organisationByName, useChecked, userByEmail, Wrong } from './data.js';

/** The names of the filters in the page's address. */
export const filterNames = ['actor', 'action', 'target', 'userId', 'organisationId', 'from', 'to'] as const;

const day = /^\d{4}-\d\d-\d\d$/;

/** The beginning of a day in the person's time zone, or of the one after it. */
function beginning(text: string | null, daysLater = 0): string | undefined {
  if (!text || !day.test(text)) return undefined;
  const date = new Date(`${text}T00:00:00`);
  if (Number.isNaN(date.getTime())) return undefined;
  date.setDate(date.getDate() + daysLater);
  return date.toISOString();
}

/** The filters that the page's address has, as the panel takes them. */
export function useAuditFilter() {
  const [parameters] = useQueryParameters();
  return given({
    actor: parameters.get('actor'),
    action: parameters.get('action'),
    target: parameters.get('target'),
    userId: idOf(parameters.get('userId')),
    organisationId: idOf(parameters.get('organisationId')),
    from: beginning(parameters.get('from')),
    to: beginning(parameters.get('to'), 1),
  });
}

/** The filters of a trail; `fixed` is what it is of in any case. */
export function AuditFilters({ fixed }: { fixed: NonNullable<AuditTrailProps['query']> }): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const actions = useMemo(() => groupsOf(t.actionNames), [t]);
  const set = (name: (typeof filterNames)[number]) => (event: { target: { value: string } }) => setParameters({ [name]: event.target.value, page: undefined });
  const value = (name: string) => parameters.get(name) ?? '';
  const chips = (['actor', 'target', 'userId', 'organisationId'] as const).filter((name) => value(name) !== '' && !(name in fixed));
  return (
    <div className="stack tight">
      <div className="audit-filters">
        <Select label={t.action} name="action" value={value('action')} onChange={set('action')}>
          <option value="">{t.allActions}</option>
          {actions.map(([group, names]) => (
            <optgroup key={group} label={(t.groups as Record<string, string>)[group] ?? group}>
              {names.length > 1 && <option value={group}>{t.allOf((t.groups as Record<string, string>)[group] ?? group)}</option>}
              {names.map((name) => (
                <option key={name} value={name}>
                  {(t.actionNames as Record<string, string>)[name]}
                </option>
              ))}
            </optgroup>
          ))}
        </Select>
        <Input label={t.from} name="from" type="date" max={value('to') || undefined} value={value('from')} onChange={set('from')} />
        <Input label={t.to} name="to" type="date" min={value('from') || undefined} value={value('to')} onChange={set('to')} />
      </div>
      <MoreFilters fixed={fixed} />
      {chips.length > 0 && (
        <ul className="audit-chips" aria-label={t.active}>
          {chips.map((name) => (
            <li key={name}>
              <Button compact aria-label={t.remove(`${t.chip[name]} ${value(name)}`)} onClick={() => setParameters({ [name]: undefined, page: undefined })}>
                {t.chip[name]} <code>{value(name)}</code> <span aria-hidden="true">×</span>
              </Button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** The actions by their first word. */
function groupsOf(names: Readonly<Record<string, string>>): [group: string, names: string[]][] {
  const groups = new Map<string, string[]>();
  for (const name of Object.keys(names)) {
    const [group = name] = name.split('.');
    groups.set(group, [...(groups.get(group) ?? []), name]);
  }
  return [...groups];
}

const actorKinds = /^((user|key|device|command|provider):.+|panel|anonymous|unknown)$/;
const targetKinds = /^[a-z_]+(:.+)?$/;

/** Filters for what has to be typed: who, on what, and of whom. */
function MoreFilters({ fixed }: { fixed: NonNullable<AuditTrailProps['query']> }): ReactNode {
  const t = useText(texts);
  const admin = useIsAdmin();
  const whole = admin && Object.keys(fixed).length === 0;
  const [, setParameters] = useQueryParameters();
  const [wrong, checked] = useChecked();

  async function apply(data: FormData, form: HTMLFormElement): Promise<void> {
    const found: Record<string, string | number> = {};
    const [actor, target, user, organisation] = ['actor', 'target', 'user', 'organisation'].map((name) => textOf(data, name)) as [string, string, string, string];
    if (actor) {
      if (actorKinds.test(actor)) found['actor'] = actor;
      else if (admin && actor.includes('@')) found['actor'] = `user:${await userByEmail('actor', actor, t.noUser)}`;
      else throw new Wrong('actor', t.noActor);
    }
    if (target) {
      if (!targetKinds.test(target)) throw new Wrong('target', t.noTarget);
      found['target'] = target;
    }
    if (user) found['userId'] = idOf(user) ?? (await userByEmail('user', user, t.noUser));
    if (organisation) found['organisationId'] = idOf(organisation) ?? (await organisationByName('organisation', organisation, t.noOrganisation));
    setParameters({ ...found, page: undefined });
    form.reset();
  }

  return (
    <details className="audit-more">
      <summary>{t.more}</summary>
      <Form wide submit={t.apply} onSubmit={checked(apply)}>
        <div className="columns">
          <Input label={t.actor} name="actor" maxLength={300} placeholder={admin ? 'ada@example.com' : 'user:12'} hint={t.actorHint} error={wrong['actor']} autoComplete="off" />
          <Input label={t.target} name="target" maxLength={300} placeholder="allocation:42" hint={t.targetHint} error={wrong['target']} autoComplete="off" />
          {whole && <Input label={t.user} name="user" maxLength={254} placeholder="ada@example.com" hint={t.userHint} error={wrong['user']} autoComplete="off" />}
          {whole && <Input label={t.organisation} name="organisation" maxLength={100} hint={t.organisationHint} error={wrong['organisation']} autoComplete="off" />}
        </div>
      </Form>
    </details>
  );
}
