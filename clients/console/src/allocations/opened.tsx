import './allocations.css';
import { useAllocation } from '@eclitunnel/sdk/react';
import { useEffect, useRef, type ReactNode } from 'react';
import { Link } from 'wouter';
import { useText } from '../lib/language.js';
import { Note, State } from '../ui/index.js';
import { Addresses } from './address.js';
import type { Opened } from './opening.js';
import { presetOf } from './presets.js';
import { presetTexts } from './presets-texts.js';
import { useSituation } from './state.js';
import { texts } from './texts.js';

/** A port that was just opened: its address, what players do with it, and how it is. */
export function PortOpened({ opened: { preset: id, allocations } }: { opened: Opened }): ReactNode {
  const t = useText(texts);
  const hints = useText(presetTexts).hints;
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    // The button that was pressed is gone with its form.
    if (document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, []);
  const [first] = allocations;
  if (!first) return null;
  const preset = presetOf(id);
  const ports = [...new Set(allocations.map(({ port }) => port))];
  const usual = [preset.ports, ...(preset.further ?? [])].flatMap(({ localPort, count = 1 }) => Array.from({ length: count }, (_, i) => localPort + i));
  const moved = preset.samePort && allocations.some(({ port }) => port !== preset.ports.localPort);
  return (
    <div className="sheet stack">
      <h2 ref={heading} tabIndex={-1}>
        {t.openedTitle}
      </h2>
      <Addresses allocation={first} />
      <p>{hints[id]}</p>
      {moved && first.port === first.localPort && (
        <Note tone="warn">
          <p>{t.setPort}</p>
          <ul>
            {ports.map((port, i) => (
              <li key={port}>{usual[i] === undefined ? port : t.inPlaceOf(port, usual[i])}</li>
            ))}
          </ul>
        </Note>
      )}
      <ul className="allocations-list">
        {allocations.map(({ id }) => (
          <Line key={id} id={id} />
        ))}
      </ul>
    </div>
  );
}

function Line({ id }: { id: number }): ReactNode {
  const allocation = useAllocation(id).data;
  const situation = useSituation();
  if (!allocation) return null;
  const { tone, word, text } = situation(allocation);
  return (
    <li>
      <Link href={`/allocations/${id}`}>
        {allocation.port} {allocation.protocol.toUpperCase()}
      </Link>{' '}
      → <code>{allocation.localPort}</code> <State tone={tone}>{word}</State> <span className="small faint">{text}</span>
    </li>
  );
}
