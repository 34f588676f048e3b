import { useCallback, useId, useMemo, useState, type ReactNode } from 'react';
import { useConnections } from '@eclitunnel/sdk/react';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { Button, Loaded, Note } from '../ui/index.js';
import { Chart, type ChartLine } from './chart.js';
import { Choice } from './choice.js';
import { Figures } from './figures.js';
import { useLabels } from './labels.js';
import { useLiveSums } from './live.js';
import { isUsed, total, type Slot } from './points.js';
import { rangeNames } from './ranges.js';
import { connectionQuery, usePortsOf } from './scope.js';
import { texts } from './texts.js';
import { useRange, useRangeUsage, type RangeUsage, type Scope } from './usage.js';
import './traffic.css';

/** Chooses the range of time, which is in the page's address. */
function RangeChoice(): ReactNode {
  const t = useText(texts);
  const [, setParameters] = useQueryParameters();
  return <Choice label={t.range} options={rangeNames.map((value) => ({ value, text: t.ranges[value] }))} value={useRange()} onChange={(range) => setParameters({ range })} />;
}

/** How many players there are and what they exchange now. */
function Now({ scope }: { scope: Scope }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const ports = usePortsOf(scope);
  const sums = useLiveSums(useCallback((id: number) => ports === undefined || ports.has(id), [ports]));
  // Of one port or device each player's join and leave is told at once.
  const one = 'allocationId' in scope || 'deviceId' in scope;
  return (
    <Figures
      figures={[
        { label: t.playersNow, value: one ? <PlayerCount scope={scope} /> : (sums && format.number(sums.players)) },
        { label: t.toPlayers, value: sums && format.bits(Math.round(sums.toPlayers)) },
        { label: t.fromPlayers, value: sums && format.bits(Math.round(sums.fromPlayers)) },
      ]}
      hint={sums ? t.counted : t.counting}
    />
  );
}

function PlayerCount({ scope }: { scope: Scope }): ReactNode {
  const format = useFormat();
  const { data } = useConnections(connectionQuery(scope));
  return data && format.number(data.length);
}

/** What was carried in a range: its sums, charts, and on demand a table of the same. */
function Past({ usage: { range, step, slots }, scope, level }: { usage: RangeUsage; scope: Scope; level: 2 | 3 }): ReactNode {
  const Heading = `h${level}` as const;
  const t = useText(texts);
  const format = useFormat();
  const id = useId();
  const [open, setOpen] = useState(false);
  const sums = useMemo(() => total(slots), [slots]);
  const bytes = useMemo(
    (): ChartLine[] => [
      { label: t.toPlayers, value: (slot) => slot.downloadBytes, sum: sums.downloadBytes },
      { label: t.fromPlayers, value: (slot) => slot.uploadBytes, sum: sums.uploadBytes },
    ],
    [t, sums],
  );
  const players = useMemo(
    (): ChartLine[] => [{ label: t.peak, value: (slot) => slot.peakPlayers, sum: sums.peakPlayers }],
    [t, sums],
  );
  return (
    <>
      <div className="stack tight">
        <Heading>{t.totals[range]}</Heading>
        <Figures
          figures={[
            { label: t.toPlayers, value: format.bytes(sums.downloadBytes) },
            { label: t.fromPlayers, value: format.bytes(sums.uploadBytes) },
            { label: t.joins, value: format.number(sums.joins) },
            { label: t.peak, value: format.number(sums.peakPlayers) },
          ]}
          hint={'allocationId' in scope ? undefined : t.peakOfSums}
        />
      </div>
      {isUsed(sums) ? (
        <>
          <div className="traffic-charts">
            <Chart title={t.bytesPer[step]} slots={slots} step={step} lines={bytes} format={format.bytes} level={level} />
            <Chart title={t.playersPer[step]} slots={slots} step={step} lines={players} format={format.number} level={level} whole />
          </div>
          <div className="row apart">
            <p className="small faint">{step === 'day' || step === 'month' ? t.utc : ''}</p>
            <Button compact aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
              {open ? t.hideTable : t.showTable}
            </Button>
          </div>
          <div id={id} hidden={!open}>
            {open && <SlotTable slots={slots} step={step} />}
          </div>
        </>
      ) : (
        <Note>
          <p>
            <strong>{t.nothing}</strong>
          </p>
          <p>{t.nothingText}</p>
        </Note>
      )}
    </>
  );
}

function SlotTable({ slots, step }: Pick<RangeUsage, 'step'> & { slots: readonly Slot[] }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const labels = useLabels(step);
  return (
    <div className="stack tight">
      <div className="table-frame traffic-table" tabIndex={0} role="region" aria-label={t.table}>
        <table className="table">
          <caption className="unseen">{t.table}</caption>
          <thead>
            <tr>
              <th scope="col">{t.when}</th>
              {[t.toPlayers, t.fromPlayers, t.joins, t.peak].map((title) => (
                <th key={title} scope="col" className="number">
                  {title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {slots
              .filter(isUsed)
              .reverse()
              .map((slot) => (
                <tr key={slot.at}>
                  <td data-label={t.when}>
                    <time dateTime={new Date(slot.at).toISOString()}>{labels.slot(slot)}</time>
                  </td>
                  <td className="number" data-label={t.toPlayers}>
                    {format.bytes(slot.downloadBytes)}
                  </td>
                  <td className="number" data-label={t.fromPlayers}>
                    {format.bytes(slot.uploadBytes)}
                  </td>
                  <td className="number" data-label={t.joins}>
                    {format.number(slot.joins)}
                  </td>
                  <td className="number" data-label={t.peak}>
                    {format.number(slot.peakPlayers)}
                  </td>
                </tr>
              ))}
          </tbody>
        </table>
      </div>
      <p className="small faint">{t.leftOut}</p>
    </div>
  );
}

/** Players and bytes of a scope now, and over the range that the address names. Its headings have a level. */
export function Usage({ scope, level = 3 }: { scope: Scope; level?: 2 | 3 }): ReactNode {
  const Heading = `h${level}` as const;
  const t = useText(texts);
  const range = useRange();
  const usage = useRangeUsage(scope, range);
  return (
    <div className="stack">
      <div className="stack tight">
        <Heading>{t.now}</Heading>
        <Now scope={scope} />
      </div>
      <RangeChoice />
      <Loaded query={usage}>{(data) => <Past usage={data} scope={scope} level={level} />}</Loaded>
    </div>
  );
}
