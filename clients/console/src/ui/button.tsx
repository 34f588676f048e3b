import type { ComponentProps, ReactNode } from 'react';
import { Link } from 'wouter';

type Kind = 'primary' | 'danger' | 'danger primary' | 'plain' | '';

interface Look {
  kind?: Kind | undefined;
  compact?: boolean | undefined;
}

function classes({ kind = '', compact = false }: Look): string {
  return `button ${kind}${compact ? ' compact' : ''}`;
}

/** A button. While it is `busy` it cannot be pressed again, and keeps the focus. */
export function Button({ kind, compact, busy = false, onClick, ...rest }: Look & { busy?: boolean | undefined } & ComponentProps<'button'>): ReactNode {
  return <button type="button" {...rest} className={classes({ kind, compact })} aria-busy={busy} onClick={busy ? (event) => event.preventDefault() : onClick} />;
}

/** A link within the console that looks like a button. */
export function ButtonLink({ kind, compact, href, children }: Look & { href: string; children: ReactNode }): ReactNode {
  return (
    <Link href={href} className={classes({ kind, compact })}>
      {children}
    </Link>
  );
}
