import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { usePanelVersion } from '../lib/panel.js';
import { State } from '../ui/index.js';
import { texts } from './texts.js';

/** The version of a device's agent, and whether it is behind the panel's: in a word if it is `short`. */
export function AgentVersion({ device, short = false }: { device: Device; short?: boolean }): ReactNode {
  const t = useText(texts);
  const panel = usePanelVersion().data?.version ?? '';
  if (!device.agentVersion) return <span className="faint">{t.unknown}</span>;
  return (
    <>
      <span className="devices-version">{device.agentVersion}</span>
      {device.agentOutdated && (
        <span className="small devices-behind" title={short ? t.behind(panel) : undefined}>
          <State tone="warn">{short ? t.outdated : t.behind(panel)}</State>
        </span>
      )}
    </>
  );
}
