import { useQuery } from '@tanstack/react-query';
import type { Organisation, Schemas } from '@eclitunnel/sdk';
import { lazy, Suspense, useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { Button, Loaded } from '../ui/index.js';
import { useRights } from './data.js';
import { texts } from './texts.js';

const QuotaDialog = lazy(async () => ({ default: (await import('../site/quota.js')).QuotaDialog }));

/** What an organisation owns, and how much it may. */
export function Overview({ organisation: { id, name, role } }: { organisation: Organisation }): ReactNode {
  const t = useText(texts);
  const admin = useIsAdmin();
  const { manage } = useRights({ role });
  const [changing, setChanging] = useState(false);
  // As the panel's quota dialog reads it, so that both show the same.
  const query = useQuery({
    queryKey: keys.organisationQuota(id),
    queryFn: async ({ signal }) => {
      const { data, etag } = await client.organisations.quota(id, { signal }).withResponse();
      return { data, etag };
    },
  });
  const filter = `owner=organisation-${id}`;
  return (
    <section className="stack" aria-label={t.owned}>
      <div className="row apart">
        <h2>{t.owned}</h2>
        {admin && <Button onClick={() => setChanging(true)}>{t.changeLimits}</Button>}
      </div>
      <Loaded query={query}>
        {({ data }) => (
          <div className="columns">
            <Use title={t.devices} use={data.devices} hint={manage ? t.devicesManage : t.devicesSee} link={{ href: `/devices?${filter}`, text: t.seeDevices }} />
            <Use title={t.ports} use={data.allocations} hint={t.portsText} link={{ href: `/allocations?${filter}`, text: t.seePorts }} />
            <Use title={t.outside} use={data.portsOutsideRange} hint={t.outsideText} />
          </div>
        )}
      </Loaded>
      {!admin && <p className="small faint">{t.limitsBy}</p>}
      {changing && (
        <Suspense>
          <QuotaDialog owner={{ organisationId: id }} name={name} onClose={() => setChanging(false)} />
        </Suspense>
      )}
    </section>
  );
}

interface UseProps {
  title: string;
  use: Schemas['QuotaUse'];
  hint: string;
  link?: { href: string; text: string };
}

/** How much of a limit is used: in words, and as a bar where there is a limit. */
function Use({ title, use: { used, limit }, hint, link }: UseProps): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const full = limit !== null && used >= limit && used > 0;
  const text = (): string => (limit === null ? t.unlimited(format.number(used)) : limit === 0 && used === 0 ? t.noneAllowed : t.used(format.number(used), format.number(limit)));
  return (
    <section className="sheet stack tight organisation-sheet">
      <h3>{title}</h3>
      <p>{text()}</p>
      {limit !== null && limit > 0 && <progress className={`organisation-bar${full ? ' full' : ''}`} aria-label={title} max={limit} value={Math.min(used, limit)} />}
      {full && <p className="small warn">{used > limit ? t.above : t.full}</p>}
      <p className="small faint">{hint}</p>
      {link && (
        <p>
          <Link href={link.href}>{link.text}</Link>
        </p>
      )}
    </section>
  );
}
