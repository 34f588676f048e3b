import { useState, type ReactNode } from 'react';
import { useFormat } from '../lib/format.js';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { Button, Loaded, Table, type Column } from '../ui/index.js';
import { Choice } from './choice.js';
import { GroupName } from './group-name.js';
import { groupingOf, groupings, useGroups, type Group, type Grouping } from './groups.js';
import { useNames } from './names.js';
import { texts } from './texts.js';
import { useRange } from './usage.js';

/** How many groups are shown at first, and more of at a time. */
const pageSize = 20;

function List({ by, groups }: { by: Grouping; groups: readonly Group[] }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const [shown, setShown] = useState(pageSize);
  const names = useNames(by);
  const bytes = ({ sums }: Group): number => sums.downloadBytes + sums.uploadBytes;
  const most = Math.max(1, ...groups.map(bytes));
  const columns: Column<Group>[] = [
    {
      title: t.group[by],
      cell: (group) => (
        <div className="traffic-group">
          <GroupName by={by} group={group} names={names} />
          <div className="traffic-bar" aria-hidden="true">
            <span style={{ width: `${(bytes(group) / most) * 100}%` }} />
          </div>
        </div>
      ),
    },
    { title: t.toPlayers, cell: ({ sums }) => format.bytes(sums.downloadBytes), kind: 'number' },
    { title: t.fromPlayers, cell: ({ sums }) => format.bytes(sums.uploadBytes), kind: 'number' },
    { title: t.joins, cell: ({ sums }) => format.number(sums.joins), kind: 'number' },
    { title: t.peak, cell: ({ sums }) => format.number(sums.peakPlayers), kind: 'number' },
  ];
  if (groups.length === 0) return <p className="faint">{t.nothing}.</p>;
  const left = groups.length - shown;
  return (
    <>
      <Table caption={t.most[by]} columns={columns} items={groups.slice(0, shown)} keyOf={({ key }) => key} />
      {left > 0 && (
        <p className="row end">
          <Button compact onClick={() => setShown(shown + pageSize)}>
            {t.more(Math.min(left, pageSize))}
          </Button>
        </p>
      )}
    </>
  );
}

/** Who has most traffic, by what the page's address says (`by`), in the range that it names. */
export function Top(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const by = groupingOf(parameters.get('by'));
  const groups = useGroups(by, useRange());
  return (
    <section className="stack" aria-label={t.most[by]}>
      <div className="row apart">
        <h2>{t.most[by]}</h2>
        <Choice label={t.by} options={groupings.map((value) => ({ value, text: t.group[value] }))} value={by} onChange={(value) => setParameters({ by: value })} />
      </div>
      <Loaded query={groups} messages={{ invalid_request: t.tooMany }}>
        {(data) => <List key={data.by} by={data.by} groups={data.groups} />}
      </Loaded>
    </section>
  );
}
