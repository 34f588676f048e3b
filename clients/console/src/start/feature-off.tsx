import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { ButtonLink, Empty } from '../ui/index.js';
import { texts } from './texts.js';

/** Stands where tunnels would be, while they are switched off on this panel. */
export function FeatureOff(): ReactNode {
  const t = useText(texts);
  const admin = useIsAdmin();
  return (
    <Empty title={t.off} action={admin && <ButtonLink href="/site/settings">{t.toSettings}</ButtonLink>}>
      {t.offText}
    </Empty>
  );
}
