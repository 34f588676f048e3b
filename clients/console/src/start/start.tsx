import { useDevice } from '@eclitunnel/sdk/react';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { Suspense, useEffect, useMemo, useState, type ComponentProps, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { usePermits } from '../session/session.js';
import { ButtonLink, Command, Input, Loaded, Loading, PageHead, State } from '../ui/index.js';
import { ApprovalStep } from './approval.js';
import { useAsking } from './asking.js';
import { ByAdmin } from './by-admin.js';
import { CommandStep } from './command.js';
import { forgetDraft, useDraft } from './draft.js';
import { FeatureOff } from './feature-off.js';
import { CreatePort } from './parts.js';
import { PlayStep } from './play.js';
import './start.css';
import { Step } from './step.js';
import { texts } from './texts.js';

/**
 * The way from nothing to a player. Where a person is on it is in the page's address: the
 * device (`device`), and what was opened on it (`ports` and `game`).
 */
export default function Start(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const device = parameters.get('device');
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      {device ? (
        <WithDevice id={device} />
      ) : (
        <Machine
          onApproved={(id) => {
            forgetDraft();
            setParameters({ device: id });
          }}
        />
      )}
    </>
  );
}

/** The steps until the machine is approved. */
function Machine({ onApproved }: { onApproved(id: string): void }): ReactNode {
  const t = useText(texts);
  const [draft, change] = useDraft();
  const permits = usePermits();
  const asking = useAsking(draft.tag, permits.approve);
  const byAdmin = !permits.approve || asking.data?.state === 'forbidden';
  if (isCode(asking.error, 'feature_disabled')) return <FeatureOff />;
  return (
    <ol className="start-steps">
      <Step number={1} title={t.steps.name} state="now">
        <div className="start-name">
          <Input label={t.name} name="name" hint={t.nameHint} placeholder="home-server" maxLength={100} autoComplete="off" spellCheck={false} value={draft.name} onChange={(event) => change({ name: event.target.value })} />
        </div>
      </Step>
      <Step number={2} title={t.steps.command} state="now">
        <CommandStep draft={draft} own={byAdmin || !permits.anonymous} onChange={change} />
      </Step>
      <Step number={3} title={t.steps.approve} state="now">
        {byAdmin ? <ByAdmin draft={draft} onChange={change} onApproved={onApproved} /> : <ApprovalStep asking={asking} name={draft.name.trim()} onApproved={onApproved} />}
      </Step>
      <Step number={4} title={t.steps.port} state="later" />
      <Step number={5} title={t.steps.play} state="later" />
    </ol>
  );
}

/** The steps from there on. */
function WithDevice({ id }: { id: string }): ReactNode {
  const t = useText(texts);
  const device = useDevice(id);
  const [parameters, setParameters] = useQueryParameters();
  const game = parameters.get('game') as ComponentProps<typeof PlayStep>['game'] | null;
  const listed = parameters.get('ports') ?? '';
  const ports = useMemo(() => listed.split(',').map(Number).filter((id) => id > 0), [listed]);
  const opened = game !== null && ports.length > 0;
  if (isCode(device.error, 'feature_disabled')) return <FeatureOff />;
  return (
    <Loaded query={device}>
      {(data) => (
        <>
          <ol className="start-steps">
            <Step number={3} title={t.approved(data.name)} state="done">
              <Connected device={data} />
            </Step>
            <Step number={4} title={opened ? t.steps.opened : t.steps.port} state={opened ? 'done' : 'now'}>
              {!opened && (
                <>
                  <p>{t.portText(data.name)}</p>
                  <Suspense fallback={<Loading />}>
                    <CreatePort deviceId={id} onCreated={({ preset, allocations }) => setParameters({ game: preset, ports: allocations.map(({ id }) => id).join() })} />
                  </Suspense>
                </>
              )}
            </Step>
            <Step number={5} title={t.steps.play} state={opened ? 'now' : 'later'}>
              {opened && <PlayStep deviceId={id} game={game} ports={ports} />}
            </Step>
          </ol>
          {opened && (
            <div className="row">
              <ButtonLink kind="plain" href={`/start?${new URLSearchParams({ device: id })}`}>
                {t.anotherPort}
              </ButtonLink>
              <ButtonLink kind="plain" href="/start">
                {t.another}
              </ButtonLink>
            </div>
          )}
        </>
      )}
    </Loaded>
  );
}

/** How long a machine that was just approved may take to connect before the page asks, in milliseconds. */
const connectMs = 10_000;

/** Whether the agent of the machine is connected, and what to do if not. */
function Connected({ device: { online, lastSeenAt } }: { device: Schemas['Device'] }): ReactNode {
  const t = useText(texts);
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), connectMs);
    return () => clearTimeout(timer);
  }, []);
  const away = !online && (lastSeenAt !== null || late);
  return (
    <>
      <p role="status">{online ? <State tone="good">{t.online}</State> : <State tone={away ? 'warn' : ''}>{away ? t.offline : t.connecting}</State>}</p>
      {away && (
        <>
          <p className="small">{t.startAgent}</p>
          <Command text="eclitunnel run" label={t.commandLabel} />
        </>
      )}
    </>
  );
}
