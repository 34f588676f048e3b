import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { KeptOutList } from './kept-out.js';
import { Players } from './players-section.js';
import { texts as playersTexts } from './players-texts.js';
import { Refusals } from './refusals.js';
import { texts } from './texts.js';
import { Usage } from './usage-section.js';

/** A port or a device; the page of a port names the port. */
interface Of {
  allocationId?: number | undefined;
  deviceId?: string | undefined;
}

function scopeOf({ allocationId, deviceId, organisationId }: Of & { organisationId?: number | undefined }) {
  if (allocationId !== undefined) return { allocationId };
  if (deviceId !== undefined) return { deviceId };
  return organisationId !== undefined ? { organisationId } : {};
}

/** Players and bytes of a port, a device or an organisation: now, and over the range of the parameter `range` of the page's address. */
export function UsageSection(of: Of & { organisationId?: number | undefined }): ReactNode {
  const t = useText(texts);
  return (
    <section className="stack" aria-label={t.title}>
      <h2>{t.title}</h2>
      <Usage scope={scopeOf(of)} />
    </section>
  );
}

/** Who is connected to a port or a device, and of a port whom it keeps out for a time. */
export function PlayersSection({ allocationId, deviceId }: Of): ReactNode {
  const t = useText(playersTexts);
  return (
    <section className="stack" aria-label={t.players}>
      <h2>{t.players}</h2>
      {allocationId !== undefined ? (
        <>
          <Players scope={{ allocationId }} />
          <KeptOutList allocationId={allocationId} />
        </>
      ) : (
        deviceId !== undefined && <Players scope={{ deviceId }} />
      )}
    </section>
  );
}

/** What a port has refused since it was opened, by reason in words. */
export function RefusalsSection({ allocationId }: { allocationId: number }): ReactNode {
  const t = useText(playersTexts);
  return (
    <section className="stack tight" aria-label={t.refusals}>
      <h2>{t.refusals}</h2>
      <Refusals allocationId={allocationId} />
    </section>
  );
}
