import { useQueryClient } from '@tanstack/react-query';
import type { Organisation } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useLocation } from 'wouter';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin, useUser } from '../session/session.js';
import { Confirm, useNotices } from '../ui/index.js';
import { useChanged } from './data.js';
import { texts } from './texts.js';

/** Ends the user's own membership. */
export function Leave({ organisation: { id, name }, onLeaving, onClose }: { organisation: Organisation; onLeaving(leaving: boolean): void; onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const user = useUser();
  const admin = useIsAdmin();
  const queries = useQueryClient();
  const changed = useChanged();
  const [, navigate] = useLocation();
  return (
    <Confirm
      title={t.leaveTitle(name)}
      action={t.leave}
      messages={{ conflict: t.onlyOwner }}
      onClose={onClose}
      onConfirm={async () => {
        await client.organisations.removeMember(id, user.id);
        if (!admin) {
          onLeaving(true);
          navigate('/organisations');
          queries.removeQueries({ queryKey: keys.organisation(id) });
        }
        void changed();
        notify(t.left(name));
      }}
    >
      <p>{t.leaveText}</p>
    </Confirm>
  );
}
