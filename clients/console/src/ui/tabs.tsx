import { useEffect, useRef, type ReactNode } from 'react';
import { Link, useLocation } from 'wouter';

/** Links to the parts of a page, each with an address of its own, under which others may be. */
export function Tabs({ label, tabs }: { label: string; tabs: readonly { href: string; text: string }[] }): ReactNode {
  const [path] = useLocation();
  const frame = useRef<HTMLElement>(null);
  const current = tabs.map(({ href }) => href).reduce((best, href) => ((path === href || path.startsWith(`${href}/`)) && href.length > best.length ? href : best), '');
  useEffect(() => {
    // Where the tabs do not fit, the current one may be out of sight.
    const tab = frame.current?.querySelector('[aria-current]')?.getBoundingClientRect();
    const around = frame.current?.getBoundingClientRect();
    if (tab && around && (tab.left < around.left || tab.right > around.right)) frame.current?.scrollBy({ left: tab.left - around.left - (around.width - tab.width) / 2 });
  }, [current]);
  return (
    <nav ref={frame} className="tabs" aria-label={label}>
      {tabs.map(({ href, text }) => (
        <Link key={href} href={href} aria-current={href === current ? (path === href ? 'page' : 'true') : undefined}>
          {text}
        </Link>
      ))}
    </nav>
  );
}
