import { useQuery } from '@tanstack/react-query';
import { isCode } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Dialog, Form, Input, Loaded, Note, textOf, useNotices } from '../ui/index.js';
import { useChanged } from './data.js';
import { texts } from './texts.js';

interface Version {
  name: string;
  etag: string | undefined;
}

async function readVersion(id: number, signal?: AbortSignal): Promise<Version> {
  const { data, etag } = await client.organisations.get(id, { signal }).withResponse();
  return { name: data.name, etag };
}

/** Gives an organisation another name. */
export function Rename({ id, onClose }: { id: number; onClose(): void }): ReactNode {
  const t = useText(texts);
  const version = useQuery({ queryKey: keys.edited('organisation', id), queryFn: ({ signal }) => readVersion(id, signal), staleTime: Infinity, gcTime: 0 });
  return (
    <Dialog title={t.renameTitle} onClose={onClose}>
      <Loaded query={version}>{(version) => <RenameForm id={id} version={version} onClose={onClose} />}</Loaded>
    </Dialog>
  );
}

function RenameForm({ id, version, onClose }: { id: number; version: Version; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const changed = useChanged();
  const [first] = useState(version);
  const [last, setLast] = useState(version);
  return (
    <Form
      submit={t.save}
      messages={{ precondition_failed: t.saveAgain }}
      onCancel={onClose}
      onSubmit={async (data) => {
        const name = textOf(data, 'name');
        if (name !== last.name) {
          try {
            await client.organisations.update(id, { name }, { ifMatch: last.etag });
          } catch (error) {
            if (isCode(error, 'precondition_failed')) setLast(await readVersion(id));
            throw error;
          }
          await changed();
          notify(t.renamed(name));
        }
        onClose();
      }}
    >
      {last !== first && (
        <Note tone="warn" live>
          {t.nowCalled(last.name)}
        </Note>
      )}
      <Input name="name" label={t.name} defaultValue={first.name} required maxLength={100} autoComplete="off" autoFocus />
    </Form>
  );
}
