import { createContext, useContext, useEffect, useId, useRef, useState, type ComponentProps, type FormEvent, type ReactNode } from 'react';
import { useExplain, type Explanation, type OwnMessages } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { Button } from './button.js';
import { ErrorNote } from './states.js';
import { texts } from './texts.js';

const FieldErrors = createContext<Explanation['fields']>([]);

interface FormProps {
  /** Sends the form. What it throws is shown, beside the fields that the panel names. */
  onSubmit(data: FormData, form: HTMLFormElement): Promise<unknown> | unknown;
  submit: string;
  /** How the button looks; `primary` if it says nothing. */
  kind?: 'primary' | 'danger primary';
  /** Sentences of this form for error codes. */
  messages?: OwnMessages;
  onCancel?: (() => void) | undefined;
  disabled?: boolean;
  wide?: boolean;
  children?: ReactNode;
}

/** A form with its button. Its fields are named as the fields of the request are. */
export function Form({ onSubmit, submit, kind = 'primary', messages, onCancel, disabled = false, wide = false, children }: FormProps): ReactNode {
  const t = useText(texts);
  const explain = useExplain();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const running = useRef(false);
  const end = useRef<HTMLDivElement>(null);
  const named = useRef<Explanation['fields']>([]);
  named.current = error === undefined ? [] : explain(error, messages).fields;

  // What is wrong stands above the button, which it may push out of sight.
  useEffect(() => {
    if (error !== undefined) end.current?.scrollIntoView({ block: 'nearest' });
  }, [error]);

  async function send(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    if (running.current) return;
    const form = event.currentTarget;
    running.current = true;
    setBusy(true);
    setError(undefined);
    try {
      await onSubmit(new FormData(form), form);
    } catch (failure) {
      setError(failure);
    } finally {
      running.current = false;
      setBusy(false);
    }
  }

  return (
    <form className={`stack${wide ? ' wide' : ''}`} onSubmit={(event) => void send(event)}>
      <FieldErrors value={named.current}>{children}</FieldErrors>
      {error !== undefined && <ErrorNote error={error} messages={messages} />}
      <div className="row" ref={end}>
        <Button type="submit" kind={kind} busy={busy} disabled={disabled}>
          {submit}
        </Button>
        {onCancel && (
          <Button kind="plain" onClick={onCancel}>
            {t.cancel}
          </Button>
        )}
      </div>
    </form>
  );
}

interface FieldProps {
  label: ReactNode;
  /** The name of the field in the form, and in the request: the panel's errors name it. */
  name: string;
  hint?: ReactNode;
  /** What is wrong with the value, as far as the page itself knows. */
  error?: string | undefined;
}

/** Returns what a control of a field needs, and the field's label, hint and error around it. */
function useField({ label, name, hint, error }: FieldProps) {
  const id = useId();
  const found = useContext(FieldErrors).find(({ field }) => field === name || field.endsWith(`.${name}`))?.message;
  const wrong = error ?? found;
  return {
    control: {
      id,
      name,
      className: 'input',
      'aria-invalid': wrong ? true : undefined,
      'aria-describedby': [hint && `${id}-hint`, wrong && `${id}-error`].filter(Boolean).join(' ') || undefined,
    } as const,
    around: (control: ReactNode) => (
      <div className="field">
        <label htmlFor={id}>{label}</label>
        {control}
        {hint && (
          <p className="hint" id={`${id}-hint`}>
            {hint}
          </p>
        )}
        {wrong && (
          <p className="error" id={`${id}-error`}>
            {wrong}
          </p>
        )}
      </div>
    ),
  };
}

/** A labelled `<input>`. */
export function Input({ label, name, hint, error, ...rest }: FieldProps & Omit<ComponentProps<'input'>, 'name' | 'id' | 'className'>): ReactNode {
  const { control, around } = useField({ label, name, hint, error });
  return around(<input {...control} {...rest} />);
}

/** A labelled `<textarea>`. */
export function TextArea({ label, name, hint, error, ...rest }: FieldProps & Omit<ComponentProps<'textarea'>, 'name' | 'id' | 'className'>): ReactNode {
  const { control, around } = useField({ label, name, hint, error });
  return around(<textarea {...control} {...rest} />);
}

/** A labelled `<select>`, with its `<option>`s as children. */
export function Select({ label, name, hint, error, ...rest }: FieldProps & Omit<ComponentProps<'select'>, 'name' | 'id' | 'className'>): ReactNode {
  const { control, around } = useField({ label, name, hint, error });
  return around(<select {...control} {...rest} />);
}

/** A check box with its label behind it. */
export function Check({ label, hint, ...rest }: { label: ReactNode; hint?: ReactNode } & Omit<ComponentProps<'input'>, 'type' | 'id'>): ReactNode {
  const id = useId();
  return (
    <div className="field">
      <div className="check">
        <input {...rest} id={id} type="checkbox" aria-describedby={hint ? `${id}-hint` : undefined} />
        <label htmlFor={id}>{label}</label>
      </div>
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

/** Returns a field's text without spaces around it. */
export function textOf(data: FormData, name: string): string {
  const value = data.get(name);
  return typeof value === 'string' ? value.trim() : '';
}

/** Returns a field's number, or null if it is empty. */
export function numberOf(data: FormData, name: string): number | null {
  const text = textOf(data, name);
  return text === '' ? null : Number(text);
}
