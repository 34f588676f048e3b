import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { PageHead } from '../ui/index.js';
import { AuditTrail } from './audit.js';
import { texts } from './texts.js';

/** The audit trail of the whole panel. */
export default function AuditPage(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.audit.title} about={t.audit.about} />
      <AuditTrail />
    </>
  );
}
