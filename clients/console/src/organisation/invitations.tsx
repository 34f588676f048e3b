import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { Organisation, Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Confirm, Empty, Loaded, Table, useNotices } from '../ui/index.js';
import { useRights } from './data.js';
import { Email } from './email.js';
import { Invite } from './invite.js';
import { texts } from './texts.js';

type Invitation = Schemas['Invitation'];

/** The open invitations to an organisation, for who manages it. */
export function Invitations({ organisation }: { organisation: Organisation }): ReactNode {
  const t = useText(texts);
  const { id } = organisation;
  const { own } = useRights(organisation);
  const [inviting, setInviting] = useState(false);
  const [revoking, setRevoking] = useState<Invitation>();
  // One that is accepted leaves the list.
  const query = useQuery({ queryKey: keys.invitations(id), queryFn: ({ signal }) => client.organisations.invitations(id, { signal }), refetchInterval: 30_000 });
  const invite = (
    <Button kind="primary" onClick={() => setInviting(true)}>
      {t.inviteSomebody}
    </Button>
  );
  return (
    <section className="stack" aria-label={t.invitations}>
      <div className="row apart">
        <h2>{t.invitations}</h2>
        {query.data && query.data.length > 0 && invite}
      </div>
      <Loaded query={query}>
        {(items) =>
          items.length === 0 ? (
            <Empty title={t.noInvitations} action={invite}>
              {t.noInvitationsText}
            </Empty>
          ) : (
            <List items={items} own={own} onRevoke={setRevoking} />
          )
        }
      </Loaded>
      {inviting && <Invite organisation={organisation} onClose={() => setInviting(false)} />}
      {revoking && <Revoke organisationId={id} invitation={revoking} onClose={() => setRevoking(undefined)} />}
    </section>
  );
}

function List({ items, own, onRevoke }: { items: readonly Invitation[]; own: boolean; onRevoke(invitation: Invitation): void }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow(60);
  const time = (at: string): ReactNode => (
    <time dateTime={at} title={format.dateTime(at)}>
      {format.ago(at, now)}
    </time>
  );
  return (
    <Table
      caption={t.invitations}
      items={items}
      keyOf={({ id }) => id}
      columns={[
        { title: t.for, cell: ({ email }) => (email ? <Email of={email} /> : t.anybody) },
        { title: t.role, cell: ({ role }) => t.roles[role] },
        { title: t.made, cell: ({ createdAt }) => time(createdAt) },
        { title: t.expires, cell: ({ expiresAt }) => time(expiresAt) },
        {
          title: '',
          kind: 'actions',
          cell: (invitation) =>
            invitation.role === 'owner' && !own ? (
              <span className="small faint">{t.ownersOnly}</span>
            ) : (
              <Button compact aria-label={t.revokeOf(invitation.email ?? t.anybody)} onClick={() => onRevoke(invitation)}>
                {t.revoke}
              </Button>
            ),
        },
      ]}
    />
  );
}

function Revoke({ organisationId, invitation: { id, email }, onClose }: { organisationId: number; invitation: Invitation; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  return (
    <Confirm
      title={t.revokeTitle}
      action={t.revoke}
      messages={{ not_found: t.usedMeanwhile }}
      onClose={onClose}
      onConfirm={async () => {
        try {
          await client.organisations.revokeInvitation(organisationId, id);
        } finally {
          void queries.invalidateQueries({ queryKey: keys.invitations(organisationId) });
        }
        notify(t.revoked);
      }}
    >
      <p>{email ? t.revokeFor(email) : t.revokeText}</p>
    </Confirm>
  );
}
