import type { Allocation, Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Button, Confirm, Dialog, ErrorNote, useNotices } from '../ui/index.js';
import { useActs } from './data.js';
import { texts } from './texts.js';

type Action = Schemas['AllocationsBulk']['action'];
type BulkResult = Schemas['BulkResult'];

/** The allocations that are chosen, by ID, also those of other pages. */
export type Chosen = ReadonlyMap<number, Allocation>;

/** The most allocations that the panel changes at once. */
const most = 1000;

interface BulkBarProps {
  /** Those of the page that the user may change. */
  page: readonly Allocation[];
  chosen: Chosen;
  onChoose(chosen: Chosen): void;
}

/** Above a list: how many are chosen, and what can be done with them. */
export function BulkBar({ page, chosen, onChoose }: BulkBarProps): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const acts = useActs();
  const [busy, setBusy] = useState<Action>();
  const [error, setError] = useState<unknown>();
  const [asking, setAsking] = useState(false);
  const [refused, setRefused] = useState<{ result: BulkResult; allocation: Allocation | undefined }[]>([]);
  const all = page.length > 0 && page.every(({ id }) => chosen.has(id));
  const none = chosen.size === 0;

  function choosePage(): void {
    const next = new Map(chosen);
    for (const allocation of page) {
      if (all) next.delete(allocation.id);
      else if (next.size < most) next.set(allocation.id, allocation);
    }
    onChoose(next);
  }

  /** Carries it out, and keeps chosen what was refused and still exists. */
  async function carryOut(action: Action): Promise<void> {
    const results = await acts.many(action, [...chosen.keys()]);
    const failed = results.filter(({ ok }) => !ok).map((result) => ({ result, allocation: chosen.get(result.id) }));
    const done = results.filter(({ ok }) => ok).map(({ id }) => id);
    const left = new Set(results.filter(({ ok, error }) => !ok && error !== 'not_found').map(({ id }) => id));
    const undo = action === 'pause' && done.length > 0 ? () => acts.many('resume', done) : undefined;
    notify(t.bulkDone[action](done.length), undo);
    setRefused(failed);
    onChoose(new Map([...chosen].filter(([id]) => left.has(id))));
  }

  async function press(action: Action): Promise<void> {
    setBusy(action);
    setError(undefined);
    try {
      await carryOut(action);
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(undefined);
    }
  }

  return (
    <>
      <div className="row allocations-bulk" role="group" aria-label={t.bulk}>
        <label className="allocations-choice">
          <input type="checkbox" checked={all} disabled={page.length === 0} onChange={choosePage} />
          {none ? t.choosePage : t.chosen(chosen.size)}
        </label>
        <Button compact disabled={none} busy={busy === 'pause'} onClick={() => void press('pause')}>
          {t.pause}
        </Button>
        <Button compact disabled={none} busy={busy === 'resume'} onClick={() => void press('resume')}>
          {t.resume}
        </Button>
        <Button compact kind="danger" disabled={none} onClick={() => setAsking(true)}>
          {t.delete}
        </Button>
        {!none && (
          <Button compact kind="plain" onClick={() => onChoose(new Map())}>
            {t.chooseNone}
          </Button>
        )}
      </div>
      {error !== undefined && <ErrorNote error={error} />}
      {asking && (
        <Confirm title={t.deleteMany(chosen.size)} action={t.delete} onConfirm={() => carryOut('delete')} onClose={() => setAsking(false)}>
          <p>{t.deleteManyText}</p>
          <AddressList allocations={[...chosen.values()]} />
        </Confirm>
      )}
      {refused.length > 0 && (
        <Dialog title={t.refusedTitle(refused.length)} onClose={() => setRefused([])}>
          <ul className="allocations-list">
            {refused.map(({ result, allocation }) => (
              <li key={result.id}>
                {allocation ? `${allocation.name || t.unnamed} (${allocation.publicAddress})` : result.id}: {t.bulkErrors(result.error) || result.message}
              </li>
            ))}
          </ul>
          <div className="row">
            <Button kind="primary" onClick={() => setRefused([])}>
              {t.close}
            </Button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** The first of many addresses, and how many more there are. */
function AddressList({ allocations }: { allocations: readonly Allocation[] }): ReactNode {
  const t = useText(texts);
  const shown = 8;
  return (
    <ul className="allocations-list">
      {allocations.slice(0, shown).map(({ id, name, publicAddress }) => (
        <li key={id}>
          <code>{publicAddress}</code> {name}
        </li>
      ))}
      {allocations.length > shown && <li>{t.andMore(allocations.length - shown)}</li>}
    </ul>
  );
}
