import { useState, type ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Button, Copyable, Dialog, Form, Note } from '../ui/index.js';
import { webhooksTexts } from './webhooks-texts.js';

/** Shows a secret, once. */
export function SecretDialog({ secret, oldUntil, onClose }: { secret: string; oldUntil?: string; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const format = useFormat();
  return (
    <Dialog title={t.secretTitle} onClose={onClose}>
      <Note tone="warn">{t.secretText}</Note>
      <Copyable text={secret} label={t.copy} />
      {oldUntil && <p className="small faint">{t.oldUntil(format.dateTime(oldUntil))}</p>}
      <div className="row">
        <Button kind="primary" onClick={onClose}>
          {t.done}
        </Button>
      </div>
    </Dialog>
  );
}

/** Asks whether to replace the secret of a webhook, and shows the new one. */
export function Rotate({ webhook: { id, name }, onClose }: { webhook: Schemas['Webhook']; onClose(): void }): ReactNode {
  const t = useText(webhooksTexts);
  const [made, setMade] = useState<Schemas['WebhookSecret']>();
  if (made) return <SecretDialog key="made" secret={made.secret} oldUntil={made.oldSecretExpiresAt} onClose={onClose} />;
  return (
    <Dialog key="ask" title={t.rotateTitle(name)} onClose={onClose}>
      <p>{t.rotateText}</p>
      <Form submit={t.rotate} onCancel={onClose} onSubmit={async () => setMade(await client.webhooks.rotateSecret(id, { idempotencyKey: true }))} />
    </Dialog>
  );
}
