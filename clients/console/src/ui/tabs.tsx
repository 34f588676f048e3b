import type { ReactNode } from 'react';
import { Link, useLocation } from 'wouter';

/** Links to the parts of a page, each with an address of its own. */
export function Tabs({ label, tabs }: { label: string; tabs: readonly { href: string; text: string }[] }): ReactNode {
  const [path] = useLocation();
  return (
    <nav className="tabs" aria-label={label}>
      {tabs.map(({ href, text }) => (
        <Link key={href} href={href} aria-current={path === href ? 'page' : undefined}>
          {text}
        </Link>
      ))}
    </nav>
  );
}
