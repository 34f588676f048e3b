import type { Allocation } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { State } from '../ui/index.js';
import { usePlayers } from './data.js';
import { useSituation } from './state.js';

/** The state of an allocation in a word, and what to do if there is something to do. */
export function StateCell({ allocation }: { allocation: Allocation }): ReactNode {
  const { tone, word, text, trouble } = useSituation()(allocation);
  return (
    <div className="allocations-state">
      <State tone={tone}>{word}</State>
      {trouble && <p className="small faint">{text}</p>}
    </div>
  );
}

/** The number of players now, or a dash where nothing is known. */
export function PlayersCell({ id }: { id: number }): ReactNode {
  const format = useFormat();
  const players = usePlayers(id);
  return players === undefined ? <span className="faint">–</span> : format.number(players);
}
