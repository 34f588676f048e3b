import { useQuery } from '@tanstack/react-query';
import { useId, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Loaded, PageHead } from '../ui/index.js';
import { texts } from './texts.js';
import './account.css';

/** How much of each limit is used: as bars, and in numbers. */
function QuotaBars({ quota }: { quota: Schemas['Quota'] }): ReactNode {
  const t = useText(texts).limits;
  return (
    <div className="account-limits sheet">
      {(['devices', 'allocations', 'portsOutsideRange'] as const).map((name) => (
        <Bar key={name} label={t[name]} use={quota[name]} />
      ))}
    </div>
  );
}

function Bar({ label, use: { used, limit } }: { label: string; use: Schemas['QuotaUse'] }): ReactNode {
  const t = useText(texts).limits;
  const format = useFormat();
  const id = useId();
  return (
    <div>
      <div className="row apart">
        <span id={id}>{label}</span>
        <span>{limit === null ? t.unlimited(format.number(used)) : t.use(format.number(used), format.number(limit))}</span>
      </div>
      {limit !== null && limit > 0 && <meter aria-labelledby={id} min={0} max={limit} high={limit * 0.9} optimum={0} value={Math.min(used, limit)} />}
      {limit !== null && limit > 0 && used >= limit && <p className="small faint">{t.full}</p>}
    </div>
  );
}

/** The limits of the person's own account. */
export function Limits(): ReactNode {
  const t = useText(texts).limits;
  const quota = useQuery(tunnelQueries(client).quota());
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <Loaded query={quota}>{(data) => <QuotaBars quota={data} />}</Loaded>
    </>
  );
}
