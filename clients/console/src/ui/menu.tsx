import { Menu as Base } from '@base-ui/react/menu';
import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { texts } from './texts.js';

/** A button that opens a menu of acts. `label` says of what, for those who do not see its row. */
export function Menu({ label, children }: { label?: string; children: ReactNode }): ReactNode {
  const t = useText(texts);
  return (
    <Base.Root>
      <Base.Trigger className="button compact" aria-label={label ? `${t.actions}: ${label}` : undefined}>
        {t.actions} <span aria-hidden="true">▾</span>
      </Base.Trigger>
      <Base.Portal>
        <Base.Positioner align="end" sideOffset={4}>
          <Base.Popup className="menu">{children}</Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  );
}

export function MenuItem({ onSelect, bad = false, disabled = false, children }: { onSelect(): void; bad?: boolean; disabled?: boolean; children: ReactNode }): ReactNode {
  return (
    <Base.Item className={`menu-item${bad ? ' bad' : ''}`} disabled={disabled} onClick={onSelect}>
      {children}
    </Base.Item>
  );
}

export function MenuLine(): ReactNode {
  return <Base.Separator className="menu-line" />;
}
