import type { ReactNode } from 'react';
import { useDevice } from '@eclitunnel/sdk/react';
import { useHostWarning } from '../lib/host-warning.js';
import { useText } from '../lib/language.js';
import { Button, ButtonLink, Loaded, Note, PageHead, State } from '../ui/index.js';
import { texts } from './texts.js';

/** Says that a device is approved, whether it has connected, and leads on. */
export function Approved({ id, onAnother }: { id: string; onAnother(): void }): ReactNode {
  const t = useText(texts);
  const hostWarning = useHostWarning();
  const device = useDevice(id);
  return (
    <Loaded query={device}>
      {({ name, kind, online, server }) => (
        <>
          <PageHead key="approved" title={t.approved(name)} about={t.approvedText} />
          <div className="sheet stack">
            <p role="status">
              <State tone={online ? 'good' : ''}>{online ? t.online : t.waiting}</State>
            </p>
            {server && (
              <dl className="facts">
                <dt>{t.publicHost}</dt>
                <dd>{server.publicHostGuessed ? t.guessed(server.publicHost) : server.publicHost}</dd>
              </dl>
            )}
            {server?.publicHostWarning && <Note tone="warn">{hostWarning(server.publicHostWarning)}</Note>}
            {!online && (
              <p className="small faint">
                {t.notRunning}
                <code>eclitunnel run</code>
              </p>
            )}
            <div className="row">
              {kind === 'client' && (
                <ButtonLink kind="primary" href={`/start?${new URLSearchParams({ device: id })}`}>
                  {t.openPort}
                </ButtonLink>
              )}
              <ButtonLink href={`/devices/${id}`}>{t.toDevice}</ButtonLink>
              <Button kind="plain" onClick={onAnother}>
                {t.approveAnother}
              </Button>
            </div>
          </div>
        </>
      )}
    </Loaded>
  );
}
