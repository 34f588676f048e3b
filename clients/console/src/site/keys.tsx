import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import type { Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Command, Copyable, Empty, Loaded, PageHead, State, Table, type Tone } from '../ui/index.js';
import { texts } from './texts.js';

type KeyState = Schemas['SigningKeyState'];

const tones: Readonly<Record<KeyState, Tone>> = { published: '', signs: 'good', verifies: '', retired: '' };

/** The keys with which the panel signs, without their private parts. */
export default function KeysPage(): ReactNode {
  const t = useText(texts).keys;
  const query = useQuery({ queryKey: keys.signingKeys, queryFn: ({ signal }) => client.admin.signingKeys({ signal }), refetchInterval: 60_000 });
  const signing = query.data?.find(({ state }) => state === 'signs');
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <Loaded query={query}>
        {(all) =>
          all.length === 0 ? (
            <Empty title={t.none} />
          ) : (
            <div className="stack">
              <Table
                caption={t.title}
                items={all}
                keyOf={({ id }) => id}
                columns={[
                  { title: t.id, cell: ({ id }) => <Copyable text={id} label={t.copy} /> },
                  { title: t.state, cell: ({ state }) => <KeyStateCell state={state} /> },
                  { title: t.created, cell: ({ createdAt }) => <Time at={createdAt} /> },
                  { title: t.signsFrom, cell: ({ signsFrom }) => <Time at={signsFrom} /> },
                  { title: t.retired, cell: ({ retiredAt }) => (retiredAt ? <Time at={retiredAt} /> : <span className="faint">{t.notRetired}</span>) },
                ]}
              />
              <p className="faint">{t.rotation}</p>
            </div>
          )
        }
      </Loaded>
      <section className="stack tight">
        <h2>{t.leaked}</h2>
        <p>{t.leakedText}</p>
        <Command text="eclitunneld keys list" label={t.command} />
        <Command text={`eclitunneld keys revoke ${signing?.id ?? 'KEY'}`} label={t.command} />
      </section>
    </>
  );
}

function KeyStateCell({ state }: { state: KeyState }): ReactNode {
  const t = useText(texts).keys;
  const { word, text } = t.states[state];
  return (
    <div>
      <State tone={tones[state]}>{word}</State>
      <p className="small faint">{text}</p>
    </div>
  );
}

function Time({ at }: { at: string }): ReactNode {
  const format = useFormat();
  const now = useNow(60);
  return (
    <time className="nowrap" dateTime={at} title={format.ago(at, now)}>
      {format.dateTime(at)}
    </time>
  );
}
