import { useEffect, useId, useRef, useState, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { texts } from './texts.js';

/** A search field whose text is in the page's address (`q`), shortly after it was typed. */
export function SearchBox({ label, placeholder }: { label?: string; placeholder?: string }): ReactNode {
  const t = useText(texts);
  const id = useId();
  const [parameters, setParameters] = useQueryParameters();
  const q = parameters.get('q') ?? '';
  const [text, setText] = useState(q);
  const sent = useRef(q);
  useEffect(() => {
    // The browser's Back button, or a link, has changed the address.
    if (q !== sent.current) setText((sent.current = q));
  }, [q]);
  useEffect(() => {
    if (text === sent.current) return;
    const timer = setTimeout(() => setParameters({ q: (sent.current = text), page: undefined }, { replace: true }), 250);
    return () => clearTimeout(timer);
  }, [text, setParameters]);
  return (
    <div className="grow" role="search">
      <label className="unseen" htmlFor={id}>
        {label ?? t.search}
      </label>
      <input id={id} className="input" type="search" placeholder={placeholder ?? label ?? t.search} maxLength={100} value={text} onChange={(event) => setText(event.target.value)} />
    </div>
  );
}

/** A choice of a filter, whose value is in the page's address under `name`. */
export function Filter({ name, label, options }: { name: string; label: string; options: readonly { value: string; text: string }[] }): ReactNode {
  const id = useId();
  const [parameters, setParameters] = useQueryParameters();
  return (
    <div>
      <label className="unseen" htmlFor={id}>
        {label}
      </label>
      <select id={id} className="input" value={parameters.get(name) ?? ''} onChange={(event) => setParameters({ [name]: event.target.value, page: undefined })}>
        <option value="">{label}</option>
        {options.map(({ value, text }) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </div>
  );
}
