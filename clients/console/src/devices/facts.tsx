import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { AgentVersion } from './agent.js';
import { detailTexts } from './detail-texts.js';
import { Owner } from './owner.js';
import { platformName } from './state.js';
import { texts } from './texts.js';

/** What a device is, and whose. */
export function Facts({ device }: { device: Device }): ReactNode {
  const t = useText(texts);
  const own = useText(detailTexts);
  const format = useFormat();
  return (
    <section className="sheet stack devices-facts" aria-labelledby="devices-facts">
      <h2 id="devices-facts">{own.facts}</h2>
      <dl className="facts">
        <dt>{own.kind}</dt>
        <dd>{t.kinds[device.kind]}</dd>
        <dt>{own.platform}</dt>
        <dd>{device.platform ? platformName(device.platform) : <span className="faint">{t.unknown}</span>}</dd>
        <dt>{own.version}</dt>
        <dd className="devices-agent">
          <AgentVersion device={device} />
        </dd>
        <dt>{own.owner}</dt>
        <dd>
          <Owner device={device} />
        </dd>
        <dt>{own.added}</dt>
        <dd>
          <time dateTime={device.createdAt}>{format.dateTime(device.createdAt)}</time>
        </dd>
      </dl>
      {device.approved && device.agentOutdated && <p className="small faint">{own.updateHint}</p>}
    </section>
  );
}
