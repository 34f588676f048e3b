import { useEffect, useRef, type RefObject } from 'react';

/**
 * Gives the focus back to the button of a menu when a dialog that one of its items has
 * opened is closed: the item itself is gone by then. The element is around the menu.
 */
export function useMenuFocus(open: boolean): RefObject<HTMLSpanElement | null> {
  const around = useRef<HTMLSpanElement>(null);
  const was = useRef(open);
  useEffect(() => {
    if (was.current && !open) around.current?.querySelector('button')?.focus();
    was.current = open;
  }, [open]);
  return around;
}
