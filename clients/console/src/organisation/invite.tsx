import { useQueryClient } from '@tanstack/react-query';
import type { Organisation, Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Copyable, Dialog, Form, Input, Note, Select, textOf } from '../ui/index.js';
import { roles, useRights, type Role } from './data.js';
import { texts } from './texts.js';

/** Makes a link with which somebody becomes a member, and shows it once. */
export function Invite({ organisation, onClose }: { organisation: Organisation; onClose(): void }): ReactNode {
  const t = useText(texts);
  const queries = useQueryClient();
  const { id, name } = organisation;
  const { own } = useRights(organisation);
  const [role, setRole] = useState<Role>('member');
  const [made, setMade] = useState<Schemas['InvitationCreated']>();
  return (
    <Dialog title={t.inviteTitle(name)} onClose={onClose}>
      {made ? (
        <Made invitation={made} onClose={onClose} />
      ) : (
        <Form
          submit={t.makeLink}
          messages={{ conflict: t.tooManyInvitations }}
          onCancel={onClose}
          onSubmit={async (data) => {
            const email = textOf(data, 'email');
            setMade(await client.organisations.invite(id, { role, ...(email && { email }) }, { idempotencyKey: true }));
            void queries.invalidateQueries({ queryKey: keys.invitations(id) });
          }}
        >
          <Select name="role" label={t.role} hint={t.roleText[role]} value={role} onChange={(event) => setRole(event.target.value as Role)}>
            {roles
              .filter((one) => own || one !== 'owner')
              .map((one) => (
                <option key={one} value={one}>
                  {t.roles[one]}
                </option>
              ))}
          </Select>
          <Input name="email" type="email" label={t.emailOptional} hint={t.emailHint} maxLength={254} autoComplete="off" />
        </Form>
      )}
    </Dialog>
  );
}

function Made({ invitation: { url, email, expiresAt }, onClose }: { invitation: Schemas['InvitationCreated']; onClose(): void }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  return (
    <>
      <p>{email ? t.linkFor(email) : t.linkForAnybody}</p>
      <Copyable text={url} label={t.theLink} />
      <Note tone="warn">{t.linkOnce}</Note>
      <p className="small faint">{t.until(format.dateTime(expiresAt))}</p>
      <div className="row">
        <Button kind="primary" onClick={onClose}>
          {t.done}
        </Button>
      </div>
    </>
  );
}
