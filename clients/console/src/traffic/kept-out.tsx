import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { useAllocation } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, ErrorNote, Loaded, Table, useNotices, type Column } from '../ui/index.js';
import { texts } from './players-texts.js';
import { useManages } from './scope.js';

type KeptOut = Schemas['KeptOut'];

/** The sources that a port keeps out for a time, which may be let in again. */
export function KeptOutList({ allocationId }: { allocationId: number }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const now = useNow(5);
  const queries = useQueryClient();
  const { notify } = useNotices();
  const manages = useManages(useAllocation(allocationId).data?.deviceId);
  const keptOut = useQuery({
    queryKey: keys.keptOut(allocationId),
    queryFn: ({ signal }) => client.allocations.keptOut(allocationId, { signal }),
    refetchInterval: 30_000,
  });
  const readmit = useMutation({
    mutationFn: async (source: string) => {
      try {
        await client.allocations.readmit(allocationId, { source });
      } catch (error) {
        // Its time is over, or somebody else has let it in.
        if (!isCode(error, 'not_found')) throw error;
      }
    },
    onSuccess: (_, source) => notify(t.readmitted(source)),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.keptOut(allocationId) }),
  });
  const columns: Column<KeptOut>[] = [
    { title: t.source, cell: ({ source }) => <code className="traffic-address">{source}</code> },
    {
      title: t.until,
      cell: ({ until }) => (
        <time dateTime={until} title={format.ago(until, now)}>
          {format.dateTime(until)}
        </time>
      ),
    },
  ];
  if (manages) {
    columns.push({
      title: '',
      kind: 'actions',
      cell: ({ source }) => (
        <Button compact busy={readmit.isPending && readmit.variables === source} aria-label={t.readmitWhom(source)} onClick={() => readmit.mutate(source)}>
          {t.readmit}
        </Button>
      ),
    });
  }
  return (
    <div className="stack tight">
      <h3>{t.keptOut}</h3>
      {readmit.isError && <ErrorNote error={readmit.error} />}
      <Loaded query={keptOut}>
        {(all) => {
          const list = all.filter(({ until }) => Date.parse(until) > now);
          return list.length === 0 ? <p className="faint">{t.nobodyKeptOut}</p> : <Table caption={t.keptOut} columns={columns} items={list} keyOf={({ source }) => source} />;
        }}
      </Loaded>
      {manages && <p className="small faint">{t.keptOutText}</p>}
    </div>
  );
}
