import { useQuery } from '@tanstack/react-query';
import { isCode, type Device, type Organisation, type Schemas } from '@eclitunnel/sdk';
import { useId, useState, type ReactNode } from 'react';
import { useOrganisations } from '../allocations/data.js';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Dialog, Form, Input, Loaded, Note, Select, textOf, useNotices } from '../ui/index.js';
import { actsTexts } from './acts-texts.js';
import { useChanging } from './changing.js';
import { useVersion, type Version } from './data.js';

interface NewOwners {
  /** Whether there is anybody to whom the user may give the device. */
  offered: boolean;
  me: boolean;
  organisations: readonly Organisation[];
  anybody: boolean;
}

/** To whom the user may give a device. */
export function useNewOwners({ kind, ownerId, organisationId }: Pick<Device, 'kind' | 'ownerId' | 'organisationId'>): NewOwners {
  const user = useUser();
  const admin = useIsAdmin();
  const all = useOrganisations().data ?? [];
  // Whom a tunnel server serves, admins of the panel decide.
  const may = admin || kind === 'client';
  const me = may && ownerId !== user.id;
  const organisations = may ? all.filter(({ id, role }) => id !== organisationId && (admin || role === 'owner' || role === 'admin')) : [];
  return { offered: me || organisations.length > 0 || admin, me, organisations, anybody: admin };
}

/** Gives a device with its ports to another owner. */
export function MoveDevice({ id, onClose }: { id: string; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const version = useVersion(id);
  return (
    <Dialog title={t.moveTitle} onClose={onClose}>
      <Loaded query={version}>{(version) => <MoveForm version={version} onClose={onClose} />}</Loaded>
    </Dialog>
  );
}

/** The email that was entered belongs to nobody on the panel. */
class NobodyFound extends Error {}

async function ownerOf(data: FormData): Promise<Schemas['DevicePatch']> {
  const [kind, id] = textOf(data, 'owner').split('-');
  if (kind === 'organisation') return { organisationId: Number(id) };
  if (kind === 'user') return { ownerId: Number(id) };
  const email = textOf(data, 'person').toLowerCase();
  const found = await client.users.list({ search: email, limit: 10 });
  const person = found.find((user) => user.email.toLowerCase() === email);
  if (!person) throw new NobodyFound();
  return { ownerId: person.id };
}

function MoveForm({ version, onClose }: { version: Version; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const user = useUser();
  const { notify } = useNotices();
  const { device, save } = useChanging(version);
  const { me, organisations, anybody } = useNewOwners(device);
  const [choice, setChoice] = useState('');
  const [nobodyFound, setNobodyFound] = useState(false);
  const [limit, setLimit] = useState<number>();
  return (
    <Form
      submit={t.move}
      messages={{ ...t.moveErrors, precondition_failed: t.nowOwned, ...(limit !== undefined && { quota_exceeded: t.quota(limit) }) }}
      onCancel={onClose}
      onSubmit={async (data) => {
        setNobodyFound(false);
        try {
          await save(await ownerOf(data));
        } catch (error) {
          if (error instanceof NobodyFound) return setNobodyFound(true);
          if (isCode(error, 'quota_exceeded')) setLimit(error.quota.limit);
          throw error;
        }
        notify(t.moved(device.name));
        onClose();
      }}
    >
      <p>{t.moveText}</p>
      {device.kind === 'server' && <Note>{t.serverMoveText}</Note>}
      <Select name="owner" label={t.newOwner} required value={choice} onChange={(event) => setChoice(event.target.value)}>
        <option value="" disabled>
          {t.chooseOwner}
        </option>
        {me && <option value={`user-${user.id}`}>{t.me(user.email)}</option>}
        {organisations.map(({ id, name }) => (
          <option key={id} value={`organisation-${id}`}>
            {t.organisation(name)}
          </option>
        ))}
        {anybody && <option value="person">{t.person}</option>}
      </Select>
      {choice === 'person' && <Person nobodyFound={nobodyFound} />}
    </Form>
  );
}

/** A field for the email of a user, which suggests those that contain what was typed. */
function Person({ nobodyFound }: { nobodyFound: boolean }): ReactNode {
  const t = useText(actsTexts);
  const list = useId();
  const [text, setText] = useState('');
  const q = text.trim();
  const users = useQuery({
    queryKey: keys.suggestedUsers(q),
    queryFn: ({ signal }) => client.users.list({ q, limit: 10 }, { signal }),
    enabled: q.length > 1,
    placeholderData: (before) => before,
  });
  return (
    <>
      <Input name="person" label={t.personEmail} type="email" error={nobodyFound ? t.nobodyFound : undefined} list={list} autoComplete="off" spellCheck={false} required maxLength={254} value={text} onChange={(event) => setText(event.target.value)} />
      <datalist id={list}>
        {users.data?.map(({ id, email }) => (
          <option key={id} value={email} />
        ))}
      </datalist>
    </>
  );
}
