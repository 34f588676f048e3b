import type { ReactNode } from 'react';
import { Button, Copyable, Dialog, Note } from '../ui/index.js';

interface SecretDialogProps {
  secret: string;
  texts: Readonly<Record<'title' | 'warning' | 'copy' | 'done', string>>;
  /** What else there is to say about it. */
  children?: ReactNode;
  onClose(): void;
}

/** Shows a secret, once. */
export function SecretDialog({ secret, texts: t, children, onClose }: SecretDialogProps): ReactNode {
  return (
    <Dialog title={t.title} onClose={onClose}>
      <Note tone="warn">{t.warning}</Note>
      <Copyable text={secret} label={t.copy} />
      {children}
      <div className="row">
        <Button kind="primary" onClick={onClose}>
          {t.done}
        </Button>
      </div>
    </Dialog>
  );
}
