import { useQueryClient } from '@tanstack/react-query';
import type { Organisation } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { Link, useLocation } from 'wouter';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Confirm, Menu, MenuItem, MenuLine, useNotices } from '../ui/index.js';
import { useChanged, useRights } from './data.js';
import { Leave } from './leave.js';
import { Rename } from './rename.js';
import { texts } from './texts.js';

interface ActsProps {
  organisation: Organisation;
  /** Told before it is deleted or left, and if that fails after all. */
  onLeaving(leaving: boolean): void;
}

/** What the user may do with an organisation. */
export function Acts({ organisation, onLeaving }: ActsProps): ReactNode {
  const t = useText(texts);
  const { manage, own } = useRights(organisation);
  const [act, setAct] = useState<'rename' | 'leave' | 'delete'>();
  const close = (): void => setAct(undefined);
  const member = organisation.role !== null;
  return (
    <>
      {manage ? (
        <Menu label={organisation.name}>
          <MenuItem onSelect={() => setAct('rename')}>{t.rename}</MenuItem>
          {(member || own) && <MenuLine />}
          {member && (
            <MenuItem bad onSelect={() => setAct('leave')}>
              {t.leave}
            </MenuItem>
          )}
          {own && (
            <MenuItem bad onSelect={() => setAct('delete')}>
              {t.delete}
            </MenuItem>
          )}
        </Menu>
      ) : (
        member && <Button onClick={() => setAct('leave')}>{t.leave}</Button>
      )}
      {act === 'rename' && <Rename id={organisation.id} onClose={close} />}
      {act === 'leave' && <Leave organisation={organisation} onLeaving={onLeaving} onClose={close} />}
      {act === 'delete' && <Delete organisation={organisation} onLeaving={onLeaving} onClose={close} />}
    </>
  );
}

function Delete({ organisation: { id, name }, onLeaving, onClose }: ActsProps & { onClose(): void }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  const changed = useChanged();
  const [, navigate] = useLocation();
  return (
    <Confirm
      title={t.deleteTitle(name)}
      action={t.delete}
      name={name}
      messages={{ conflict: t.hasDevices }}
      onClose={onClose}
      onConfirm={async () => {
        await client.organisations.delete(id);
        onLeaving(true);
        navigate('/organisations');
        queries.removeQueries({ queryKey: keys.organisation(id) });
        void changed();
        notify(t.deleted(name));
      }}
    >
      <p>{t.deleteText}</p>
      <p>
        {t.deleteDevices} <Link href={`/devices?owner=organisation-${id}`}>{t.seeDevices}</Link>
      </p>
    </Confirm>
  );
}
