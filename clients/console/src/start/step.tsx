import { useEffect, useRef, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { texts } from './texts.js';

/** How many steps the page has. */
const count = 5;

interface StepProps {
  number: number;
  title: string;
  /** A step that comes later shows its title alone, and one that is done what came of it. */
  state: 'done' | 'now' | 'later';
  children?: ReactNode;
}

/** A step on the way from nothing to a player. */
export function Step({ number, title, state, children }: StepProps): ReactNode {
  const t = useText(texts);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    // The button that led here is gone, and the focus with it.
    if (state === 'now' && document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, [state]);
  return (
    <li className={`start-step stack ${state}`} aria-current={state === 'now' ? 'step' : undefined}>
      <h2 ref={heading} tabIndex={-1}>
        <span className="start-number" aria-hidden="true">
          {state === 'done' ? '✓' : number}
        </span>
        <span>
          <span className="unseen">{state === 'done' ? t.done : t.step(number, count)}: </span>
          {title}
        </span>
      </h2>
      {state !== 'later' && children && <div className="start-body stack">{children}</div>}
    </li>
  );
}
