import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Command, Copyable, Empty, Loaded, PageHead, Table } from '../ui/index.js';
import { texts } from './texts.js';

/** The public keys that verify the panel's tokens. */
export default function KeysPage(): ReactNode {
  const t = useText(texts).keys;
  const query = useQuery({ queryKey: keys.signingKeys, queryFn: ({ signal }) => client.service.jwks({ signal }), refetchInterval: 60_000 });
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <Loaded query={query}>
        {({ keys: all }) =>
          all.length === 0 ? (
            <Empty title={t.none} />
          ) : (
            <div className="stack">
              <Table
                caption={t.title}
                items={all}
                keyOf={({ kid }) => kid}
                columns={[
                  { title: t.id, cell: ({ kid }) => <Copyable text={kid} label={t.copy} /> },
                  { title: t.algorithm, cell: ({ alg, crv }) => `${alg} (${crv})` },
                  { title: t.publicKey, cell: ({ x }) => <code>{x}</code> },
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
        <Command text={`eclitunneld keys revoke ${query.data?.keys[0]?.kid ?? 'KEY'}`} label={t.command} />
      </section>
    </>
  );
}
