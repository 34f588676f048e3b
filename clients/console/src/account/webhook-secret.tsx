import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Dialog, Form } from '../ui/index.js';
import { SecretDialog } from './secret.js';
import { webhooksTexts } from './webhooks-texts.js';

/** Shows the secret of a webhook, once. */
export function WebhookSecret({ secret, oldUntil, onClose }: { secret: string; oldUntil?: string; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const format = useFormat();
  return (
    <SecretDialog secret={secret} texts={{ title: t.secretTitle, warning: t.secretText, copy: t.copy, done: t.done }} onClose={onClose}>
      {oldUntil && <p className="small faint">{t.oldUntil(format.dateTime(oldUntil))}</p>}
    </SecretDialog>
  );
}

/** Asks whether to replace the secret of a webhook, and shows the new one. */
export function Rotate({ webhook: { id, name }, onClose }: { webhook: Schemas['Webhook']; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const [made, setMade] = useState<Schemas['WebhookSecret']>();
  if (made) return <WebhookSecret key="made" secret={made.secret} oldUntil={made.oldSecretExpiresAt} onClose={onClose} />;
  return (
    <Dialog key="ask" title={t.rotateTitle(name)} onClose={onClose}>
      <p>{t.rotateText}</p>
      <Form submit={t.rotate} onCancel={onClose} onSubmit={async () => setMade(await client.webhooks.rotateSecret(id, { idempotencyKey: true }))} />
    </Dialog>
  );
}
