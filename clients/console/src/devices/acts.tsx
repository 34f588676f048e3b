import type { Device } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { useLocation } from 'wouter';
import { useMenuFocus } from '../allocations/menu-focus.js';
import { useText } from '../lib/language.js';
import { Button, Menu, MenuItem, MenuLine } from '../ui/index.js';
import { DeleteDevice } from './delete.js';
import { detailTexts } from './detail-texts.js';
import { MoveDevice, useNewOwners } from './move.js';
import { RenameDevice } from './rename.js';
import { NewToken } from './token.js';

/** The buttons of a device's page, for who may change it. */
export function Acts({ device, onLeaving }: { device: Device; onLeaving(leaving: boolean): void }): ReactNode {
  const t = useText(detailTexts);
  const [, navigate] = useLocation();
  const { offered } = useNewOwners(device);
  const [open, setOpen] = useState<'rename' | 'move' | 'token' | 'delete'>();
  const menu = useMenuFocus(open !== undefined && open !== 'rename');
  const close = (): void => setOpen(undefined);
  const { id, approved } = device;
  return (
    <>
      <Button onClick={() => setOpen('rename')}>{t.rename}</Button>
      <span ref={menu}>
        <Menu>
          {approved && offered && <MenuItem onSelect={() => setOpen('move')}>{t.move}</MenuItem>}
          {approved && <MenuItem onSelect={() => setOpen('token')}>{t.token}</MenuItem>}
          {approved && <MenuLine />}
          <MenuItem bad onSelect={() => setOpen('delete')}>
            {approved ? t.delete : t.refuse}
          </MenuItem>
        </Menu>
      </span>
      {open === 'rename' && <RenameDevice id={id} onClose={close} />}
      {open === 'move' && <MoveDevice id={id} onClose={close} />}
      {open === 'token' && <NewToken device={device} onClose={close} />}
      {open === 'delete' && <DeleteDevice device={device} onClose={close} onDeleting={onLeaving} onDeleted={() => navigate('/devices')} />}
    </>
  );
}
