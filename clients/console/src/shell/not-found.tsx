import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { ButtonLink, PageHead } from '../ui/index.js';
import { texts } from './texts.js';

/** Stands at an address at which there is no page. */
export function NotFound(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.notFound} about={t.notFoundText} />
      <p>
        <ButtonLink href="/">{t.home}</ButtonLink>
      </p>
    </>
  );
}

/** Stands in place of a page that the user may not see. */
export function Forbidden(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.forbidden} about={t.forbiddenText} />
      <p>
        <ButtonLink href="/">{t.home}</ButtonLink>
      </p>
    </>
  );
}
