import { useQuery } from '@tanstack/react-query';
import type { AllocationDetail, Device } from '@eclitunnel/sdk';
import { lazy, Suspense, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useSiteRules } from '../lib/rules.js';
import { useIsAdmin } from '../session/session.js';
import { Loaded, Loading, Note } from '../ui/index.js';
import { useVersion } from './editing.js';
import { bandwidthFields, countFields, fieldsFor, originOf, type Layers } from './rules-fields.js';
import { RulesForm } from './rules-form.js';
import { useLimitText } from './rules-limit.js';
import { rulesTexts } from './rules-texts.js';

const RefusalsSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).RefusalsSection }));

/** The rules and options of a port, with what is in effect and where that comes from, and what was refused. */
export function Rules({ allocation, device, may }: { allocation: AllocationDetail; device: Device | undefined; may: boolean | undefined }): ReactNode {
  const t = useText(rulesTexts);
  const layers = useLayers(device);
  return (
    <div className="stack loose">
      {may === undefined ? (
        <Loading />
      ) : may ? (
        <EditedRules allocation={allocation} layers={layers} />
      ) : (
        <>
          <Note>{t.mayNot}</Note>
          <RulesInEffect allocation={allocation} layers={layers} />
        </>
      )}
      <Suspense fallback={<Loading />}>
        <RefusalsSection allocationId={allocation.id} />
      </Suspense>
    </div>
  );
}

function EditedRules({ allocation, layers }: { allocation: AllocationDetail; layers: Layers }): ReactNode {
  const version = useVersion(allocation.id);
  return <Loaded query={version}>{(version) => <RulesForm version={version} current={allocation} layers={layers} />}</Loaded>;
}

/** The rules of the organisation and of the panel, as far as the user may see them. */
function useLayers(device: Device | undefined): Layers {
  const admin = useIsAdmin();
  const id = device?.organisationId ?? undefined;
  const organisation = useQuery({
    queryKey: keys.organisationRules(id ?? 0),
    queryFn: ({ signal }) => client.organisations.rules(id ?? 0, { signal }),
    enabled: id !== undefined,
    retry: false,
  });
  const site = useSiteRules(admin);
  return { organisation: organisation.data, site };
}

/** The rules in effect, for who may not change them. */
function RulesInEffect({ allocation, layers }: { allocation: AllocationDetail; layers: Layers }): ReactNode {
  const t = useText(rulesTexts);
  const limitText = useLimitText();
  const { rules, options } = allocation;
  const list = (addresses: readonly string[] | undefined, none: string): string => (addresses?.length ? addresses.join(', ') : none);
  return (
    <section className="sheet stack" aria-labelledby="allocations-rules">
      <h2 id="allocations-rules">{t.inEffect}</h2>
      <dl className="facts">
        <dt>{t.labels.allow}</dt>
        <dd>{list(rules.allow, t.everybody)}</dd>
        <dt>{t.labels.deny}</dt>
        <dd>{list(rules.deny, t.nobody)}</dd>
        {fieldsFor([...countFields, ...bandwidthFields], allocation.protocol).map((field) => {
          const origin = originOf(field.name, allocation, layers);
          return (
            <Fact key={field.name} label={t.labels[field.name]}>
              {limitText(field, rules[field.name])} {origin !== 'none' && <span className="faint small">({t.origins[origin]})</span>}
            </Fact>
          );
        })}
        <Fact label={t.labels.proxyProtocol}>{t.proxyProtocols[options.proxyProtocol ?? 'none']}</Fact>
      </dl>
    </section>
  );
}

function Fact({ label, children }: { label: string; children: ReactNode }): ReactNode {
  return (
    <>
      <dt>{label}</dt>
      <dd>{children}</dd>
    </>
  );
}
