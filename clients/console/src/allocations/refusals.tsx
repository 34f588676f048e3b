import type { AllocationDetail } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { refusalTexts } from './refusal-texts.js';

type Counts = Pick<AllocationDetail, 'playersRefused' | 'datagramsDropped'>;

function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

/** How many players, and datagrams of players, a port has refused. */
export function refusedTotal({ playersRefused, datagramsDropped }: Counts): number {
  return sum(playersRefused) + sum(datagramsDropped);
}

/** What a port has refused, by reason, the most frequent first, and what helps. */
export function Refusals({ allocation: { playersRefused, datagramsDropped, protocol } }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(refusalTexts);
  const format = useFormat();
  const counts = protocol === 'tcp' ? playersRefused : datagramsDropped;
  const reasons = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return (
    <section className="stack" aria-labelledby="allocations-refusals">
      <div>
        <h2 id="allocations-refusals">{t.title}</h2>
        <p className="small faint">{protocol === 'tcp' ? t.aboutPlayers : t.aboutDatagrams}</p>
      </div>
      {reasons.length === 0 ? (
        <p>{t.none}</p>
      ) : (
        <div className="table-frame">
          <table className="table">
            <caption className="unseen">{t.title}</caption>
            <thead>
              <tr>
                <th scope="col">{t.reason}</th>
                <th scope="col" className="number">
                  {protocol === 'tcp' ? t.players : t.datagrams}
                </th>
              </tr>
            </thead>
            <tbody>
              {reasons.map(([reason, count]) => (
                <tr key={reason}>
                  <td data-label={t.reason}>{(t.reasons as Record<string, string>)[reason] ?? t.reasons.other}</td>
                  <td className="number" data-label={protocol === 'tcp' ? t.players : t.datagrams}>
                    {format.number(count)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
