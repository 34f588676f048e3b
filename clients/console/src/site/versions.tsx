import type { ReactNode } from 'react';
import { Link } from 'wouter';
import type { Device } from '@eclitunnel/sdk';
import { useDevices } from '@eclitunnel/sdk/react';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { usePanelVersion } from '../lib/panel.js';
import { Loaded, PageHead, State, Table } from '../ui/index.js';
import { texts } from './texts.js';

/** The panel's version, and those of the devices. */
export default function VersionsPage(): ReactNode {
  const t = useText(texts).versions;
  const panel = usePanelVersion();
  const devices = useDevices({ approved: true });
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <section className="sheet stack tight">
        <h2>{t.panel}</h2>
        <Loaded query={panel}>
          {({ version, commit, go }) => (
            <dl className="facts">
              <dt>{t.version}</dt>
              <dd>{version}</dd>
              <dt>{t.commit}</dt>
              <dd>
                <code>{commit}</code>
              </dd>
              <dt>{t.go}</dt>
              <dd>{go}</dd>
            </dl>
          )}
        </Loaded>
      </section>
      <Loaded query={devices}>{(all) => <Agents devices={all} panel={panel.data?.version} />}</Loaded>
    </>
  );
}

function Agents({ devices, panel }: { devices: readonly Device[]; panel: string | undefined }): ReactNode {
  const t = useText(texts).versions;
  const format = useFormat();
  const now = useNow(60);
  const known = devices.filter(({ agentVersion }) => agentVersion !== null);
  const rows = [...new Set(known.map(({ agentVersion }) => agentVersion ?? ''))].map((version) => {
    const of = known.filter(({ agentVersion }) => agentVersion === version);
    return { version, outdated: of.some(({ agentOutdated }) => agentOutdated), count: of.length, online: of.filter(({ online }) => online).length };
  });
  rows.sort((a, b) => b.version.localeCompare(a.version, undefined, { numeric: true }));
  const behind = devices.filter(({ agentOutdated }) => agentOutdated);
  if (rows.length === 0) return <p className="faint">{t.none}</p>;
  return (
    <>
      <section className="stack tight">
        <h2>{t.agents}</h2>
        <Table
          caption={t.agents}
          items={rows}
          keyOf={({ version }) => version}
          columns={[
            { title: t.version, cell: ({ version }) => <code>{version}</code> },
            { title: t.panel, cell: ({ version, outdated }) => <Comparison version={version} outdated={outdated} panel={panel} /> },
            { title: t.count, kind: 'number', cell: ({ count }) => format.number(count) },
            { title: t.online, kind: 'number', cell: ({ online }) => format.number(online) },
          ]}
        />
      </section>
      <section className="stack tight">
        <h2>{t.who}</h2>
        {behind.length === 0 ? (
          <p className="faint">{t.nobody}</p>
        ) : (
          <>
            <p className="faint">{t.how}</p>
            <Table
              caption={t.who}
              items={behind}
              keyOf={({ id }) => id}
              columns={[
                { title: t.device, cell: ({ id, name }) => <Link href={`/devices/${id}`}>{name}</Link> },
                { title: t.kind, cell: ({ kind }) => t.kinds[kind] },
                { title: t.version, cell: ({ agentVersion }) => <code>{agentVersion}</code> },
                { title: t.platform, cell: ({ platform }) => platform },
                { title: t.seen, cell: ({ online, lastSeenAt }) => (online ? t.now : lastSeenAt ? <time dateTime={lastSeenAt} title={format.dateTime(lastSeenAt)}>{format.ago(lastSeenAt, now)}</time> : t.never) },
              ]}
            />
          </>
        )}
      </section>
    </>
  );
}

/** How a version stands to that of the panel. */
function Comparison({ version, outdated, panel }: { version: string; outdated: boolean; panel: string | undefined }): ReactNode {
  const t = useText(texts).versions;
  if (outdated) return <State tone="warn">{t.behind}</State>;
  if (!panel) return null;
  return version === panel ? <State tone="good">{t.same}</State> : <State>{t.other}</State>;
}
