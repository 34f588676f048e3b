import { useQuery } from '@tanstack/react-query';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Loaded, Table, type Column } from '../ui/index.js';
import { texts } from './players-texts.js';
import { refusalsOf, type Refusal } from './refusal-list.js';
import './traffic.css';

/** What a port has refused, by reason. */
export function Refusals({ allocationId }: { allocationId: number }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  // No event tells of refusals.
  const allocation = useQuery({ ...tunnelQueries(client).allocation(allocationId), refetchInterval: 15_000 });
  const words = (reason: string): { title: string; hint: string } => (t.reasons as Record<string, { title: string; hint: string }>)[reason] ?? { title: reason, hint: t.reasons.other.hint };
  const columns: Column<Refusal>[] = [
    {
      title: t.reason,
      cell: ({ reason }) => (
        <div>
          {words(reason).title}
          <div className="small faint">{words(reason).hint}</div>
        </div>
      ),
    },
    { title: t.refusedPlayers, cell: ({ players }) => format.number(players), kind: 'number' },
    { title: t.droppedDatagrams, cell: ({ datagrams }) => format.number(datagrams), kind: 'number' },
  ];
  return (
    <Loaded query={allocation}>
      {({ playersRefused, datagramsDropped }) => {
        const list = refusalsOf(playersRefused, datagramsDropped, Object.keys(t.reasons));
        if (list.length === 0) return <p className="faint">{t.nothingRefused}</p>;
        return (
          <div className="stack tight traffic-refusals">
            <p className="small faint">{t.refusalsText}</p>
            <Table caption={t.refusals} columns={columns} items={list} keyOf={({ reason }) => reason} />
          </div>
        );
      }}
    </Loaded>
  );
}
