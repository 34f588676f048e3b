import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Device } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useUser } from '../session/session.js';
import { ButtonLink, Check, Command, Dialog, Form, Input, Loaded, Select, numberOf, textOf, useNotices } from '../ui/index.js';
import { MovePorts } from './server-move.js';
import type { Server } from './servers.js';
import { texts } from './servers-texts.js';

export type ServerAct = { kind: 'drain' | 'move' | 'edit'; of: Server } | { kind: 'enroll' };

/** The dialog of what somebody wants to do with a tunnel server. */
export function ServerDialog({ act, servers, waiting, onClose }: { act: ServerAct | undefined; servers: readonly Server[]; waiting: readonly Device[]; onClose(): void }): ReactNode {
  if (!act) return null;
  switch (act.kind) {
    case 'enroll':
      return <Enroll waiting={waiting} onClose={onClose} />;
    case 'drain':
      return <Drain server={act.of} onClose={onClose} />;
    case 'move':
      return <MovePorts server={act.of} servers={servers} onClose={onClose} />;
    case 'edit':
      return <Edit server={act.of} onClose={onClose} />;
  }
}

/** A choice of how long players may stay, in seconds. */
export function DrainTime({ name }: { name: string }): ReactNode {
  const t = useText(texts);
  return (
    <Select label={t.time} name={name} defaultValue="3600">
      {Object.entries(t.times).map(([seconds, text]) => (
        <option key={seconds} value={seconds}>
          {text}
        </option>
      ))}
    </Select>
  );
}

function Drain({ server, onClose }: { server: Server; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  return (
    <Dialog title={t.drainTitle(server.name)} onClose={onClose}>
      <p>{t.drainText}</p>
      <Form
        submit={t.drainDo}
        kind="danger primary"
        messages={{ conflict: t.noServer }}
        onCancel={onClose}
        onSubmit={async (data) => {
          await client.devices.drain(server.id, { timeoutSeconds: numberOf(data, 'timeoutSeconds') ?? 3600, move: data.has('move') }, { idempotencyKey: true });
          await queries.invalidateQueries({ queryKey: keys.devices });
          notify(t.draining_(server.name));
          onClose();
        }}
      >
        <DrainTime name="timeoutSeconds" />
        <Check label={t.moveToo} name="move" hint={t.moveTooHint} />
      </Form>
    </Dialog>
  );
}

function Edit({ server, onClose }: { server: Server; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  // The version is that of what the form shows, so that nothing is overwritten unseen.
  const device = useQuery({ queryKey: keys.edited('server', server.id), queryFn: ({ signal }) => client.devices.get(server.id, { signal }).withResponse(), staleTime: 0, gcTime: 0 });
  return (
    <Dialog title={t.editTitle(server.name)} onClose={onClose}>
      <Loaded query={device}>
        {({ data: { server: now }, etag }) => (
          <Form
            key={etag}
            submit={t.save}
            onCancel={onClose}
            onSubmit={async (data) => {
              const [first, last] = [numberOf(data, 'first'), numberOf(data, 'last')];
              const host = textOf(data, 'publicHost');
              const shown = now?.publicHostGuessed ? '' : now?.publicHost;
              await client.devices.update(
                server.id,
                { server: { ...(host !== shown && { publicHost: host }), region: textOf(data, 'region'), ...(first !== null && last !== null && { portRange: { first, last } }) } },
                { ifMatch: etag },
              );
              await queries.invalidateQueries({ queryKey: keys.devices });
              notify(t.saved);
              onClose();
            }}
          >
            <Input label={t.host} name="publicHost" maxLength={254} defaultValue={now?.publicHostGuessed ? '' : now?.publicHost} placeholder={now?.publicHost} hint={t.hostHint} autoComplete="off" />
            <div className="columns">
              <Input label={t.first} name="first" type="number" required min={1} max={65535} defaultValue={now?.portRange.first} hint={t.rangeHint} />
              <Input label={t.last} name="last" type="number" required min={1} max={65535} defaultValue={now?.portRange.last} />
            </div>
            <Input label={t.region} name="region" maxLength={50} defaultValue={now?.region} hint={t.regionHint} autoComplete="off" />
          </Form>
        )}
      </Loaded>
    </Dialog>
  );
}

/** Returns a word for a shell, quoted where it has to be. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function Enroll({ waiting, onClose }: { waiting: readonly Device[]; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { email } = useUser();
  const [fields, setFields] = useState({ name: '', host: '', region: '' });
  const providers = useQuery({ queryKey: keys.providers, queryFn: ({ signal }) => client.auth.providers({ signal }) });
  const local = providers.data?.localAccounts ?? true;
  const words = ['eclitunnel', 'enroll', '--kind', 'server', '--panel', location.origin];
  if (location.protocol === 'http:' && !/^(localhost|127\.|\[::1\])/.test(location.hostname)) words.push('--insecure');
  for (const [flag, value] of [['--name', fields.name], ['--public-host', fields.host], ['--region', fields.region]] as const) {
    if (value.trim()) words.push(flag, value.trim());
  }
  words.push(...(local ? ['--user', email] : ['--session-token-file', '-']));
  const field = (name: keyof typeof fields) => ({ name, value: fields[name], autoComplete: 'off', onChange: (event: { target: { value: string } }) => setFields((all) => ({ ...all, [name]: event.target.value })) });
  return (
    <Dialog title={t.create} onClose={onClose}>
      <div className="columns">
        <Input label={`${t.name} (${t.optional})`} placeholder="fra-1" maxLength={100} {...field('name')} />
        <Input label={`${t.host} (${t.optional})`} placeholder="fra1.example.com" maxLength={254} {...field('host')} />
        <Input label={`${t.region} (${t.optional})`} placeholder="Frankfurt" maxLength={50} {...field('region')} />
      </div>
      <p>{t.enrollText}</p>
      <Command text={words.map(shellWord).join(' ')} label={t.command} />
      <p className="small faint">{local ? t.password(email) : t.byKey}</p>
      <p>{t.run}</p>
      <Command text="eclitunnel run" label={t.command} />
      <p className="small faint">{t.needs}</p>
      <section className="stack tight" aria-live="polite">
        <h3>{t.waiting}</h3>
        {waiting.length === 0 && <p className="faint">{t.waitingNone}</p>}
        {waiting.map(({ id, name, userCode }) => (
          <div key={id} className="row apart">
            <span>
              {name} <code>{userCode}</code>
            </span>
            {userCode && (
              <ButtonLink compact kind="primary" href={`/device?${new URLSearchParams({ code: userCode })}`}>
                {t.look}
              </ButtonLink>
            )}
          </div>
        ))}
      </section>
    </Dialog>
  );
}
