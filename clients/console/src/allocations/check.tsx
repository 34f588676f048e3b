import type { AllocationDetail, Schemas } from '@eclitunnel/sdk';
import { useMutation } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { Button, ErrorNote, State } from '../ui/index.js';
import { checkTexts } from './check-texts.js';

type Found = Schemas['AllocationCheck'];

/** The answer to whether players can join; any other outcome means that they cannot. */
const answers: Readonly<Partial<Record<Found['outcome'], Exclude<keyof typeof answerTones, 'no'>>>> = {
  reachable: 'yes',
  open: 'likely',
  refused_by_rules: 'unknown',
  tunnel_server_offline: 'unknown',
  unknown: 'unknown',
};

const answerTones = { yes: 'good', likely: 'good', no: 'bad', unknown: 'warn' } as const;

const tones = { ok: 'good', failed: 'bad', skipped: '', unknown: 'warn' } as const;

/** Checks whether players can join, when somebody wants to know. */
export function Check({ allocation: { id } }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(checkTexts);
  const check = useMutation({ mutationFn: () => client.allocations.check(id) });
  return (
    <section className="sheet stack" aria-labelledby="allocations-check">
      <h2 id="allocations-check">{t.title}</h2>
      <p className="small faint">{t.about}</p>
      <div role="status" className="stack">
        {check.data && !check.isPending && <Result found={check.data} />}
      </div>
      {check.isError && <ErrorNote error={check.error} messages={{ rate_limited: t.rateLimited }} />}
      <p>
        <Button busy={check.isPending} onClick={() => check.mutate()}>
          {check.data ? t.again : t.check}
        </Button>
      </p>
    </section>
  );
}

function Result({ found: { outcome, hops, game } }: { found: Found }): ReactNode {
  const t = useText(checkTexts);
  const answer = answers[outcome] ?? 'no';
  return (
    <>
      <p className="allocations-word">
        <State tone={answerTones[answer]}>{t.answer[answer]}</State>
      </p>
      <p>{t.outcome[outcome]}</p>
      {game && <Game game={game} />}
      <details className="allocations-hops" open={outcome === 'unknown'}>
        <summary>{t.details}</summary>
        <dl className="facts">
          {hops.map(({ hop, state, detail }) => (
            <HopRow key={hop} name={t.hop[hop]} tone={tones[state]} word={t.state[state]} detail={state === 'skipped' ? '' : detail} />
          ))}
        </dl>
      </details>
    </>
  );
}

function HopRow({ name, tone, word, detail }: { name: string; tone: (typeof tones)[keyof typeof tones]; word: string; detail: string }): ReactNode {
  return (
    <>
      <dt>{name}</dt>
      <dd>
        <State tone={tone}>{word}</State>
        {detail && (
          <p className="small faint" lang="en">
            {detail}
          </p>
        )}
      </dd>
    </>
  );
}

function Game({ game: { name, version, players, maxPlayers, roundTripMs } }: { game: Schemas['GameStatus'] }): ReactNode {
  const t = useText(checkTexts);
  const format = useFormat();
  const told = [
    name,
    version,
    players !== undefined && maxPlayers !== undefined && t.players(format.number(players), format.number(maxPlayers)),
    roundTripMs !== undefined && `${format.number(Math.round(roundTripMs))} ms`,
  ].filter(Boolean);
  return (
    <p className="small">
      {t.game}: {told.join(' · ')}
    </p>
  );
}
