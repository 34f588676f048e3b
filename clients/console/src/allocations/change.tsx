import type { Schemas } from '@eclitunnel/sdk';
import { useUpdateAllocation } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Dialog, Form, Input, Loaded, numberOf, Select, textOf, useNotices } from '../ui/index.js';
import { useRereadPages, useServers } from './data.js';
import { Overtaken, useEditing, useVersion, type Version } from './editing.js';
import { errorTexts } from './error-texts.js';
import { labelsOf, linesOf } from './label-lines.js';
import { LabelsField } from './labels.js';
import { texts } from './texts.js';

/** Changes the name, the local target, the public port and the labels. */
export function ChangePort({ id, onClose }: { id: number; onClose(): void }): ReactNode {
  const t = useText(texts);
  const version = useVersion(id);
  return (
    <Dialog title={t.changeTitle} onClose={onClose}>
      <Loaded query={version}>{(version) => <ChangeForm version={version} onClose={onClose} />}</Loaded>
    </Dialog>
  );
}

function ChangeForm({ version, onClose }: { version: Version; onClose(): void }): ReactNode {
  const t = useText(texts);
  const errors = useText(errorTexts);
  const { notify } = useNotices();
  const editing = useEditing(version);
  const { allocation } = editing;

  async function save(data: FormData): Promise<void> {
    const body: Schemas['AllocationPatch'] = {};
    const [name, localHost] = [textOf(data, 'name'), textOf(data, 'localHost')];
    const [localPort, port] = [numberOf(data, 'localPort'), numberOf(data, 'port')];
    if (name !== allocation.name) body.name = name;
    if (localHost !== allocation.localHost) body.localHost = localHost;
    if (localPort !== null && localPort !== allocation.localPort) body.localPort = localPort;
    if (port !== null && port !== allocation.port) body.port = port;
    const labels = labelsOf(textOf(data, 'labels'));
    if (linesOf(labels).join('\n') !== linesOf(allocation.labels).join('\n')) body.labels = labels;
    if (Object.keys(body).length > 0) {
      await editing.save(body);
      notify(t.saved);
    }
    onClose();
  }

  return (
    <Form submit={t.save} messages={errors.change} onCancel={onClose} onSubmit={save}>
      <Overtaken editing={editing} labels={t.fields} />
      <Input name="name" label={t.fields.name} defaultValue={allocation.name} maxLength={100} autoFocus autoComplete="off" />
      <div className="allocations-pair">
        <Input name="localHost" label={t.fields.localHost} defaultValue={allocation.localHost} required maxLength={300} spellCheck={false} autoComplete="off" />
        <Input name="localPort" label={t.fields.localPort} type="number" min={1} max={65535} required defaultValue={allocation.localPort} />
      </div>
      <p className="small faint">{t.targetHint}</p>
      {allocation.runId ? (
        <p className="small faint">{t.runPort}</p>
      ) : (
        <Input name="port" label={t.fields.port} type="number" min={1} max={65535} required defaultValue={allocation.port} hint={t.portChangeHint} />
      )}
      <LabelsField labels={allocation.labels} />
    </Form>
  );
}

/** How long players may stay on the tunnel server that a port leaves, in seconds. */
const drains = [3600, 600, 60, 0] as const;

/** Moves a port to another tunnel server. */
export function MovePort({ id, serverId, onClose }: { id: number; serverId: string; onClose(): void }): ReactNode {
  const t = useText(texts);
  const errors = useText(errorTexts);
  const { notify } = useNotices();
  const update = useUpdateAllocation();
  const reread = useRereadPages();
  const servers = useServers();
  return (
    <Dialog title={t.moveTitle} onClose={onClose}>
      <Loaded query={servers}>
        {(all) => (
          <Form
            submit={t.move}
            messages={errors.move}
            onCancel={onClose}
            onSubmit={async (data) => {
              await update.mutateAsync({ id, body: { serverId: textOf(data, 'serverId'), drainSeconds: Number(data.get('drainSeconds')) } });
              await reread();
              notify(t.moved);
              onClose();
            }}
          >
            <p>{t.moveText}</p>
            <Select name="serverId" label={t.server} required defaultValue="">
              <option value="" disabled>
                {t.chooseServer}
              </option>
              {all
                .filter(({ id }) => id !== serverId)
                .map(({ id, name, online, server }) => (
                  <option key={id} value={id} disabled={!online || server?.state !== 'active'}>
                    {[name, server?.region, online ? (server?.state === 'active' ? '' : t.notActive) : t.notOnline].filter(Boolean).join(' · ')}
                  </option>
                ))}
            </Select>
            <Select name="drainSeconds" label={t.drain} hint={t.drainHint} defaultValue={drains[0]}>
              {drains.map((seconds) => (
                <option key={seconds} value={seconds}>
                  {t.drains[`s${seconds}`]}
                </option>
              ))}
            </Select>
          </Form>
        )}
      </Loaded>
    </Dialog>
  );
}
