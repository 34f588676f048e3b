import { useDevices } from '@eclitunnel/sdk/react';
import { useEffect, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useUser } from '../session/session.js';
import { Note } from '../ui/index.js';
import type { Draft } from './draft.js';
import { texts } from './texts.js';

interface ByAdminProps {
  draft: Draft;
  onChange(changes: Partial<Draft>): void;
  onApproved(id: string): void;
}

/** Waits for an admin to approve the machine of a person who may not do so. */
export function ByAdmin({ draft: { known }, onChange, onApproved }: ByAdminProps): ReactNode {
  const t = useText(texts);
  const user = useUser();
  const devices = useDevices({ ownerId: user.id, kind: 'client', approved: true }).data;
  useEffect(() => {
    if (!devices) return;
    if (!known) onChange({ known: devices.map(({ id }) => id) });
    const added = known && devices.find(({ id }) => !known.includes(id));
    if (added) onApproved(added.id);
  }, [devices, known, onChange, onApproved]);
  return <Note>{t.forbidden(user.email)}</Note>;
}
