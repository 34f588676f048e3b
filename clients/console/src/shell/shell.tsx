import { useRef, type ReactNode } from 'react';
import { Link, useLocation } from 'wouter';
import { useText } from '../lib/language.js';
import { useIsAdmin, useSignOut, useUser } from '../session/session.js';
import { LiveMark } from './live-mark.js';
import { texts } from './texts.js';

/** The frame of the pages for who is signed in: navigation, live mark, and the page. */
export function Shell({ children }: { children: ReactNode }): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const admin = useIsAdmin();
  const signOut = useSignOut();
  const [path] = useLocation();
  const navigation = useRef<HTMLElement>(null);

  const pages: readonly (readonly [href: string, text: string])[] = [
    ['/', t.overview],
    ['/devices', t.devices],
    ['/allocations', t.allocations],
    ['/traffic', t.traffic],
    ['/organisations', t.organisations],
    ['/account', t.account],
    ...(admin ? [['/site', t.site] as const] : []),
  ];
  const current = (href: string): boolean => path === href || (href !== '/' && path.startsWith(`${href}/`));

  return (
    <div className="shell">
      <a className="skip" href="#page">
        {t.skip}
      </a>
      <header className="top">
        <Link href="/" className="brand">
          EcliTunnel
        </Link>
        <LiveMark />
        <button type="button" className="button compact menu-button" popoverTarget="navigation">
          {t.menu}
        </button>
      </header>
      <nav ref={navigation} id="navigation" popover="auto" className="navigation" aria-label={t.navigation} onClick={() => navigation.current?.matches(':popover-open') && navigation.current.hidePopover()}>
        <ul>
          {pages.map(([href, text]) => (
            <li key={href}>
              <Link href={href} aria-current={current(href) ? 'page' : undefined}>
                {text}
              </Link>
            </li>
          ))}
        </ul>
        <p className="small faint who" title={t.signedInAs(user.email)}>
          {user.email}
        </p>
        <button type="button" className="link small" onClick={() => void signOut()}>
          {t.signOut}
        </button>
      </nav>
      <main id="page" tabIndex={-1} className="stack loose">
        {children}
      </main>
    </div>
  );
}

/** The frame of a page for who is not signed in. */
export function Plain({ children }: { children: ReactNode }): ReactNode {
  return (
    <main className="plain stack">
      <p className="brand">EcliTunnel</p>
      {children}
    </main>
  );
}
