import type { Allocation } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { useLocation } from 'wouter';
import { useExplain } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { Confirm, Menu, MenuItem, MenuLine, useNotices } from '../ui/index.js';
import { ChangePort } from './change.js';
import { useActs } from './data.js';
import { useMenuFocus } from './menu-focus.js';
import { texts } from './texts.js';

/** What can be done with one port of a list. */
export function RowMenu({ allocation }: { allocation: Allocation }): ReactNode {
  const t = useText(texts);
  const [, navigate] = useLocation();
  const { pause, resume } = useActs();
  const { notify } = useNotices();
  const explain = useExplain();
  const [open, setOpen] = useState<'change' | 'delete'>();
  const menu = useMenuFocus(open !== undefined);
  const close = (): void => setOpen(undefined);
  const tell = (done: Promise<void>): void => void done.catch((error: unknown) => notify(explain(error).message));
  return (
    <span ref={menu}>
      <Menu label={allocation.name || allocation.publicAddress}>
        {allocation.enabled ? <MenuItem onSelect={() => tell(pause(allocation))}>{t.pause}</MenuItem> : <MenuItem onSelect={() => tell(resume(allocation))}>{t.resume}</MenuItem>}
        <MenuItem onSelect={() => setOpen('change')}>{t.edit}</MenuItem>
        <MenuItem onSelect={() => navigate(`/allocations/${allocation.id}/rules`)}>{t.rules}</MenuItem>
        <MenuLine />
        <MenuItem bad onSelect={() => setOpen('delete')}>
          {t.delete}
        </MenuItem>
      </Menu>
      {open === 'change' && <ChangePort id={allocation.id} onClose={close} />}
      {open === 'delete' && <DeletePort allocation={allocation} onClose={close} />}
    </span>
  );
}

/** Asks before a port is deleted. */
export function DeletePort({ allocation, onClose, onDeleted }: { allocation: Allocation; onClose(): void; onDeleted?: () => void }): ReactNode {
  const t = useText(texts);
  const { remove } = useActs();
  return (
    <Confirm
      title={t.deleteTitle(allocation.name)}
      action={t.delete}
      onClose={onClose}
      onConfirm={async () => {
        await remove(allocation);
        onDeleted?.();
      }}
    >
      <p>{t.deleteText(allocation.publicAddress)}</p>
      {allocation.runId && <p>{t.deleteRun}</p>}
    </Confirm>
  );
}
