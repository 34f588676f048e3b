import { useEffect, useId, useRef, useState, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Form, Input } from './form.js';
import type { OwnMessages } from '../lib/errors.js';
import { texts } from './texts.js';

/** A modal dialog, which is open as long as it is rendered. Escape calls `onClose`. */
export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }): ReactNode {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    const opener = document.activeElement;
    element?.showModal();
    return () => {
      element?.close();
      // What opened it may have gone with what was deleted, or with its menu.
      const next = opener instanceof HTMLElement && opener !== document.body && opener.isConnected ? opener : document.getElementById('page');
      next?.focus({ preventScroll: true });
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      className="dialog"
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <div className="stack">
        <h2 id={id}>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  children: ReactNode;
  /** What the button says: the act, such as "Delete". */
  action: string;
  /** The name that has to be typed; without one a click is enough. */
  name?: string | undefined;
  danger?: boolean;
  messages?: OwnMessages;
  /** Carries it out; the dialog closes when that succeeds, and shows why when it does not. */
  onConfirm(): Promise<unknown>;
  onClose(): void;
}

/** Asks before an act that cannot be undone. */
export function Confirm({ title, children, action, name, danger = true, messages = {}, onConfirm, onClose }: ConfirmProps): ReactNode {
  const t = useText(texts);
  const [typed, setTyped] = useState('');
  return (
    <Dialog title={title} onClose={onClose}>
      {children}
      <Form
        submit={action}
        kind={danger ? 'danger primary' : 'primary'}
        messages={messages}
        disabled={name !== undefined && typed.trim() !== name}
        onCancel={onClose}
        onSubmit={async () => {
          await onConfirm();
          onClose();
        }}
      >
        {name !== undefined && <Input name="confirmation" label={t.typeName(name)} autoComplete="off" spellCheck={false} value={typed} onChange={(event) => setTyped(event.target.value)} />}
      </Form>
    </Dialog>
  );
}
