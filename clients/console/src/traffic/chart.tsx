import { lazy, Suspense, useState, type KeyboardEvent, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { useLabels, type Labels } from './labels.js';
import type { Line } from './plot.js';
import type { Slot } from './points.js';
import type { Step } from './ranges.js';
import { texts } from './texts.js';

const Plot = lazy(() => import('./plot.js'));

/** A line of a chart, and what stands for it in the legend while no time is chosen. */
export interface ChartLine extends Line {
  sum: number;
}

interface ChartProps {
  title: string;
  slots: readonly Slot[];
  step: Step;
  lines: readonly ChartLine[];
  format(value: number): string;
  /** Whether values are counts. */
  whole?: boolean;
  /** The level of its heading. */
  level: 2 | 3;
}

/** Where a key moves the chosen time to. */
function moved(key: string, selected: number, last: number): number | undefined {
  const page = Math.max(1, Math.round(last / 10));
  const to = { ArrowLeft: selected - 1, ArrowDown: selected - 1, ArrowRight: selected + 1, ArrowUp: selected + 1, PageDown: selected - page, PageUp: selected + page, Home: 0, End: last }[key];
  return to === undefined ? undefined : Math.min(Math.max(to, 0), last);
}

/** A chart of usage over time. Its values are read by pointing at them, and by the arrow keys. */
export function Chart({ title, slots, step, lines, format, whole = false, level }: ChartProps): ReactNode {
  const t = useText(texts);
  const Heading = `h${level}` as const;
  const labels = useLabels(step);
  const [chosen, choose] = useState<number>();
  const last = slots.length - 1;
  const selected = chosen === undefined || chosen > last ? undefined : chosen;
  const slot = selected === undefined ? undefined : slots[selected];
  const when = slot ? timeOf(slot, selected === last, step, labels, t.running) : t.inAll;

  const press = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') return choose(undefined);
    const to = moved(event.key, selected ?? last + 1, last);
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  };
  const read = slots[selected ?? last];
  return (
    <figure className="traffic-chart">
      <figcaption>
        <Heading className="traffic-title">{title}</Heading>
        <p className="traffic-legend small" aria-hidden="true">
          {lines.map(({ label, value, sum }, i) => (
            <span key={label} className={`traffic-key ${i === 0 ? 'traffic-first' : 'traffic-second'}`}>
              <span className="traffic-key-text">{label}</span> <strong>{format(slot ? value(slot) : sum)}</strong>
            </span>
          ))}
          <span className="faint">{when}</span>
        </p>
      </figcaption>
      <div
        className="traffic-reader"
        role="slider"
        tabIndex={0}
        title={t.chartHelp}
        aria-label={title}
        aria-valuemin={0}
        aria-valuemax={Math.max(last, 0)}
        aria-valuenow={Math.max(selected ?? last, 0)}
        aria-valuetext={read && `${timeOf(read, (selected ?? last) === last, step, labels, t.running)}: ${lines.map(({ label, value }) => `${label} ${format(value(read))}`).join(', ')}`}
        onKeyDown={press}
        onBlur={() => choose(undefined)}
      >
        <Suspense>
          <Plot slots={slots} lines={lines} step={step} labels={labels} format={format} whole={whole} selected={selected} onSelect={choose} />
        </Suspense>
      </div>
    </figure>
  );
}

function timeOf(slot: Slot, running: boolean, step: Step, labels: Labels, since: (time: string) => string): string {
  return running && (step === 'minute' || step === 'hour') ? since(labels.time(slot.at)) : labels.slot(slot);
}
