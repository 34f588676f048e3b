import type { ReactNode } from 'react';
import { catalogue, useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { ButtonLink, Empty } from '../ui/index.js';

// Of its own, so that the overview does without the texts of the steps.
const texts = catalogue({
  en: {
    off: 'Tunnels are switched off',
    offText: 'An admin has switched tunnels off on this panel. What is set up stays, and works again when they are switched on.',
    toSettings: 'To the settings',
  },
  de: {
    off: 'Tunnel sind abgeschaltet',
    offText: 'Ein Admin hat die Tunnel auf diesem Panel abgeschaltet. Was eingerichtet ist, bleibt, und funktioniert wieder, wenn sie eingeschaltet werden.',
    toSettings: 'Zu den Einstellungen',
  },
});

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
