import './allocations.css';
import type { Allocation } from '@eclitunnel/sdk';
import { isCode } from '@eclitunnel/sdk';
import { useCreateAllocation, useUpdateAllocation } from '@eclitunnel/sdk/react';
import { useRef, useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import { useText } from '../lib/language.js';
import { Check, Form, Input, Note, numberOf, Select, textOf } from '../ui/index.js';
import { useClients, useMayManage, useRereadPages, useServers } from './data.js';
import { errorTexts } from './error-texts.js';
import { labelsOf } from './label-lines.js';
import { LabelsField } from './labels.js';
import { open, type Opened, type SameBy, type Wanted } from './opening.js';
import { portsText, presetOf, presets, type FurtherPorts, type NewProtocol, type Preset, type PresetId } from './presets.js';
import { presetTexts } from './presets-texts.js';
import { texts } from './texts.js';

interface CreatePortProps {
  /** The device that gets the port; without one the person chooses it. */
  deviceId?: string | undefined;
  /** Called when everything is open; show it with `PortOpened`. */
  onCreated(opened: Opened): void;
}

/** The form for a new port: the game first, which fills in the rest. */
export function CreatePort({ deviceId, onCreated }: CreatePortProps): ReactNode {
  const t = useText(texts);
  const errors = useText(errorTexts);
  const hints = useText(presetTexts).hints;
  const [id, setId] = useState<PresetId>('minecraft');
  const [quota, setQuota] = useState<string>();
  const [already, setAlready] = useState<readonly Allocation[]>([]);
  const made = useRef(new Map<string, readonly Allocation[]>());
  const create = useCreateAllocation();
  const update = useUpdateAllocation();
  const reread = useRereadPages();
  const preset = presetOf(id);

  async function submit(data: FormData): Promise<void> {
    try {
      const allocations = await open(
        wantedOf(preset, data, deviceId),
        preset,
        {
          create: (body) => create.mutateAsync(body),
          update: (id, body) => update.mutateAsync({ id, body }),
        },
        made.current,
      );
      made.current = new Map();
      onCreated({ preset: id, allocations });
    } catch (error) {
      setAlready([...made.current.values()].flat());
      if (isCode(error, 'quota_exceeded')) {
        const { resource, limit, used } = error.quota;
        setQuota(resource === 'portsOutsideRange' ? errors.quotaOutside : errors.quotaPorts(limit, used));
      }
      throw error;
    } finally {
      await reread();
    }
  }

  return (
    <Form submit={t.open} messages={{ ...errors.create, ...(quota && { quota_exceeded: quota }) }} onSubmit={submit}>
      <Games chosen={id} onChoose={setId} />
      <Note>{hints[id]}</Note>
      {deviceId === undefined && <DeviceChoice />}
      <Fields key={id} preset={preset} />
      {already.length > 0 && (
        <Note tone="warn">
          <p>{t.alreadyOpen}</p>
          <ul>
            {already.map(({ id, publicAddress }) => (
              <li key={id}>
                <Link href={`/allocations/${id}`}>{publicAddress}</Link>
              </li>
            ))}
          </ul>
        </Note>
      )}
    </Form>
  );
}

/** What was entered in the form. */
function wantedOf(preset: Preset, data: FormData, deviceId: string | undefined): Wanted {
  const name = textOf(data, 'name');
  return {
    deviceId: deviceId ?? textOf(data, 'deviceId'),
    name,
    localHost: textOf(data, 'localHost'),
    ports: { protocol: textOf(data, 'protocol') as NewProtocol, localPort: numberOf(data, 'localPort') ?? 0, count: numberOf(data, 'count') ?? 1 },
    port: numberOf(data, 'port'),
    serverId: textOf(data, 'serverId'),
    labels: labelsOf(textOf(data, 'labels')),
    sameBy: data.get('sameBy') === 'equal' ? 'equal' : 'free',
    further: (preset.further ?? []).filter(({ use }) => data.has(`further-${use}`)).map((ports) => ({ ...ports, name: `${name} ${ports.use}`.trim() })),
  };
}

/** The choice of a game. */
function Games({ chosen, onChoose }: { chosen: PresetId; onChoose(id: PresetId): void }): ReactNode {
  const t = useText(texts);
  const names = useText(presetTexts);
  return (
    <fieldset className="allocations-games">
      <legend className="label">{t.game}</legend>
      {presets.map((preset) => (
        <label key={preset.id} className="allocations-game">
          <input type="radio" name="preset" value={preset.id} checked={chosen === preset.id} onChange={() => onChoose(preset.id)} />
          <span>
            {'title' in preset ? preset.title : names.other}
            {preset.ports.localPort > 0 && <span className="small faint">{portsText(preset.ports)}</span>}
          </span>
        </label>
      ))}
    </fieldset>
  );
}

/** The fields that a game fills in. */
function Fields({ preset }: { preset: Preset }): ReactNode {
  const t = useText(texts);
  const { ports, further = [], title } = preset;
  const own = title === undefined;
  const protocol = (
    <Select name="protocol" label={t.protocol} defaultValue={ports.protocol}>
      <option value="tcp">TCP</option>
      <option value="udp">UDP</option>
      <option value="tcp+udp">{t.both}</option>
    </Select>
  );
  return (
    <>
      <Input name="name" label={t.fields.name} hint={t.nameHint} defaultValue={title ?? ''} maxLength={100} autoComplete="off" />
      {own && protocol}
      <Input name="localPort" label={t.fields.localPort} hint={t.localPortHint} type="number" min={1} max={65535} required defaultValue={ports.localPort || ''} />
      {preset.samePort && <SamePort />}
      {further.map((one) => (
        <Further key={one.use} ports={one} />
      ))}
      <details className="allocations-more">
        <summary>{t.more}</summary>
        <div className="stack">
          <Input name="localHost" label={t.fields.localHost} hint={t.localHostHint} defaultValue="127.0.0.1" required maxLength={300} spellCheck={false} autoComplete="off" />
          {!own && protocol}
          <Input name="count" label={t.count} hint={t.countHint} type="number" min={1} max={16} required defaultValue={ports.count ?? 1} />
          {!preset.samePort && <Input name="port" label={t.fields.port} hint={t.portHint} type="number" min={1} max={65535} placeholder={t.automatic} />}
          <ServerChoice />
          <LabelsField />
        </div>
      </details>
    </>
  );
}

function DeviceChoice(): ReactNode {
  const t = useText(texts);
  const mayManage = useMayManage();
  const devices = (useClients().data ?? []).filter(mayManage);
  // What a person has chosen stays when devices come online.
  const [preferred] = useState(() => new URLSearchParams(location.search).get('deviceId') ?? devices.find(({ online }) => online)?.id);
  return (
    <Select name="deviceId" label={t.device} hint={t.deviceHint} required defaultValue={preferred}>
      {devices.map(({ id, name, online }) => (
        <option key={id} value={id}>
          {online ? name : `${name} (${t.notOnline})`}
        </option>
      ))}
    </Select>
  );
}

/** The choice of a tunnel server, for those who may see any. */
function ServerChoice(): ReactNode {
  const t = useText(texts);
  const servers = useServers().data ?? [];
  if (servers.length === 0) return null;
  return (
    <Select name="serverId" label={t.server} hint={t.serverHint} defaultValue="">
      <option value="">{t.automatic}</option>
      {servers.map(({ id, name, online, server }) => (
        <option key={id} value={id} disabled={!online}>
          {[name, server?.region, server && `${server.portRange.first}–${server.portRange.last}`].filter(Boolean).join(' · ')}
        </option>
      ))}
    </Select>
  );
}

/** How a game gets the same port on both sides. */
function SamePort(): ReactNode {
  const t = useText(texts);
  const ways: readonly SameBy[] = ['free', 'equal'];
  return (
    <fieldset className="field allocations-ways">
      <legend>{t.samePort}</legend>
      {ways.map((way) => (
        <label key={way} className="check">
          <input type="radio" name="sameBy" value={way} defaultChecked={way === 'free'} />
          <span>{t.sameBy[way]}</span>
        </label>
      ))}
    </fieldset>
  );
}

function Further({ ports }: { ports: FurtherPorts }): ReactNode {
  const t = useText(texts);
  const uses = useText(presetTexts).uses;
  return <Check name={`further-${ports.use}`} defaultChecked={ports.needed} label={t.further(portsText(ports), uses[ports.use])} hint={ports.needed ? t.furtherNeeded : t.furtherOptional} />;
}
