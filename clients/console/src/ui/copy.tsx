import { useEffect, useState, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Button } from './button.js';
import { texts } from './texts.js';

/** Copies a text to the clipboard. On pages without TLS browsers have only the older way. */
async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'unseen';
  // Within an open dialog nothing outside of it can be selected.
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('the browser does not let this page copy');
}

/** A button that copies a text. `label` says what it is, such as "the address". */
export function CopyButton({ text, label }: { text: string; label: string }): ReactNode {
  const t = useText(texts);
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <Button compact aria-label={t.copyLabel(label)} onClick={() => void copy(text).then(() => setCopied(true), console.warn)}>
      <span aria-live="polite">{copied ? t.copied : t.copy}</span>
    </Button>
  );
}

/** A short text, such as an address, with a button that copies it. */
export function Copyable({ text, label }: { text: string; label: string }): ReactNode {
  return (
    <span className="copyable">
      <code>{text}</code>
      <CopyButton text={text} label={label} />
    </span>
  );
}

/** A command for a terminal, with a button that copies it. */
export function Command({ text, label }: { text: string; label: string }): ReactNode {
  return (
    <div className="command">
      <code>{text}</code>
      <CopyButton text={text} label={label} />
    </div>
  );
}
