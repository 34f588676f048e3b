import { Menu as Base } from '@base-ui/react/menu';
import type { ReactNode } from 'react';

// The menu of Base UI, apart from what the first page loads: it is as large as the rest.

export function MenuButton({ label, button, children }: { label: string | undefined; button: ReactNode; children: ReactNode }): ReactNode {
  return (
    <Base.Root>
      <Base.Trigger className="button compact" aria-label={label}>
        {button}
      </Base.Trigger>
      {/* Within the page's landmark, where screen readers look for it. */}
      <Base.Portal container={document.getElementById('page')}>
        <Base.Positioner align="end" sideOffset={4}>
          <Base.Popup className="menu">{children}</Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  );
}

export function Item({ className, disabled, onSelect, children }: { className: string; disabled: boolean; onSelect(): void; children: ReactNode }): ReactNode {
  return (
    <Base.Item className={className} disabled={disabled} onClick={onSelect}>
      {children}
    </Base.Item>
  );
}

export function Line(): ReactNode {
  return <Base.Separator className="menu-line" />;
}
