import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Dialog, Form, Input, Loaded, Note, textOf, useNotices } from '../ui/index.js';
import { actsTexts } from './acts-texts.js';
import { useChanging } from './changing.js';
import { useVersion, type Version } from './data.js';

/** Gives a device another name. */
export function RenameDevice({ id, onClose }: { id: string; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const version = useVersion(id);
  return (
    <Dialog title={t.renameTitle} onClose={onClose}>
      <Loaded query={version}>{(version) => <RenameForm version={version} onClose={onClose} />}</Loaded>
    </Dialog>
  );
}

function RenameForm({ version, onClose }: { version: Version; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const { notify } = useNotices();
  const { device, overtaken, save } = useChanging(version);
  return (
    <Form
      submit={t.save}
      messages={{ precondition_failed: t.saveAgain }}
      onCancel={onClose}
      onSubmit={async (data) => {
        const name = textOf(data, 'name');
        if (name !== device.name) {
          await save({ name });
          notify(t.renamed(name));
        }
        onClose();
      }}
    >
      {overtaken && (
        <Note tone="warn" live>
          {t.nowCalled(device.name)}
        </Note>
      )}
      <Input name="name" label={t.name} defaultValue={version.device.name} required maxLength={100} autoComplete="off" autoFocus />
    </Form>
  );
}
