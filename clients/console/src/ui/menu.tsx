import { lazy, Suspense, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { texts } from './texts.js';

const parts = () => import('./menu-parts.js');
const MenuButton = lazy(() => parts().then(({ MenuButton }) => ({ default: MenuButton })));
const Item = lazy(() => parts().then(({ Item }) => ({ default: Item })));
const Line = lazy(() => parts().then(({ Line }) => ({ default: Line })));

/** A button that opens a menu of acts. `label` says of what, for those who do not see its row. */
export function Menu({ label, children }: { label?: string; children: ReactNode }): ReactNode {
  const t = useText(texts);
  const name = label ? `${t.actions}: ${label}` : undefined;
  const button = (
    <>
      {t.actions} <span aria-hidden="true">▾</span>
    </>
  );
  // Until the menu is loaded its button stands there already, so that nothing jumps.
  const waiting = (
    <button type="button" className="button compact" aria-label={name} aria-haspopup="menu" aria-disabled="true">
      {button}
    </button>
  );
  return (
    <Suspense fallback={waiting}>
      <MenuButton label={name} button={button}>
        {children}
      </MenuButton>
    </Suspense>
  );
}

export function MenuItem({ onSelect, bad = false, disabled = false, children }: { onSelect(): void; bad?: boolean; disabled?: boolean; children: ReactNode }): ReactNode {
  return (
    <Item className={`menu-item${bad ? ' bad' : ''}`} disabled={disabled} onSelect={onSelect}>
      {children}
    </Item>
  );
}

export function MenuLine(): ReactNode {
  return <Line />;
}
