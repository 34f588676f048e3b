import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { Allocation } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { client } from '../lib/client.js';
import { useExplain } from '../lib/errors.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Dialog, Form, Loaded, Note, numberOf, Select, textOf, useNotices } from '../ui/index.js';
import { DrainTime } from './server-dialogs.js';
import type { Server } from './servers.js';
import { texts } from './servers-texts.js';

interface Progress {
  done: number;
  all: number;
  failed: { allocation: Allocation; why: string }[];
}

/** Moves chosen ports of a tunnel server to another one, one after the other. */
export function MovePorts({ server, servers, onClose }: { server: Server; servers: readonly Server[]; onClose(): void }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const explain = useExplain();
  const { notify } = useNotices();
  const queries = useQueryClient();
  const [left, setLeft] = useState<ReadonlySet<number>>(new Set());
  const [progress, setProgress] = useState<Progress>();
  const allocations = useQuery(tunnelQueries(client).allocations({ serverId: server.id }));
  const targets = servers.filter(({ id, online, server: { state } }) => id !== server.id && online && state === 'active');

  async function move(data: FormData, chosen: readonly Allocation[]): Promise<void> {
    const serverId = textOf(data, 'serverId');
    const drainSeconds = numberOf(data, 'drainSeconds') ?? 3600;
    const failed: Progress['failed'] = [];
    for (const [i, allocation] of chosen.entries()) {
      setProgress({ done: i - failed.length, all: chosen.length, failed: [...failed] });
      await client.allocations.update(allocation.id, { serverId, drainSeconds }).catch((error: unknown) => failed.push({ allocation, why: explain(error).message }));
    }
    setProgress({ done: chosen.length - failed.length, all: chosen.length, failed });
    await Promise.all([queries.invalidateQueries({ queryKey: keys.allocations }), queries.invalidateQueries({ queryKey: keys.devices })]);
    if (failed.length > 0) return;
    notify(t.moved(format.number(chosen.length)));
    onClose();
  }

  return (
    <Dialog title={t.moveTitle(server.name)} onClose={onClose}>
      <p>{t.moveText}</p>
      <Loaded query={allocations}>
        {(all) => {
          if (all.length === 0 || targets.length === 0) {
            return (
              <>
                <p className="faint">{all.length === 0 ? t.noPorts : t.noTargets}</p>
                <div className="row">
                  <Button onClick={onClose}>{t.close}</Button>
                </div>
              </>
            );
          }
          const chosen = all.filter(({ id }) => !left.has(id));
          return (
            <Form submit={t.moveDo} disabled={chosen.length === 0} onCancel={onClose} onSubmit={(data) => move(data, chosen)}>
              <Select label={t.target} name="serverId">
                {targets.map(({ id, name, server: { region } }) => (
                  <option key={id} value={id}>
                    {region ? `${name} (${region})` : name}
                  </option>
                ))}
              </Select>
              <DrainTime name="drainSeconds" />
              <fieldset className="site-choice">
                <legend>{t.which}</legend>
                <label className="check">
                  <input type="checkbox" checked={chosen.length === all.length} onChange={(event) => setLeft(new Set(event.target.checked ? [] : all.map(({ id }) => id)))} />
                  {t.all(format.number(all.length))}
                </label>
                <div className="site-ports" tabIndex={0} role="group" aria-label={t.which}>
                  {all.map(({ id, name, publicAddress, protocol }) => (
                    <label key={id} className="check">
                      <input
                        type="checkbox"
                        checked={!left.has(id)}
                        onChange={(event) => {
                          const next = new Set(left);
                          if (event.target.checked) next.delete(id);
                          else next.add(id);
                          setLeft(next);
                        }}
                      />
                      <span>
                        {name || <em>{t.unnamed}</em>} <code>{publicAddress}</code> <span className="faint small">{protocol}</span>
                      </span>
                    </label>
                  ))}
                </div>
              </fieldset>
              {progress && (
                <div role="status" className="stack tight">
                  <p>{t.progress(format.number(progress.done), format.number(progress.all))}</p>
                  <progress className="site-progress" value={progress.done + progress.failed.length} max={progress.all} aria-label={t.moveDo} />
                </div>
              )}
              {progress && progress.failed.length > 0 && (
                <Note tone="bad" live>
                  <p>{t.failed}</p>
                  <ul>
                    {progress.failed.map(({ allocation, why }) => (
                      <li key={allocation.id}>
                        <code>{allocation.publicAddress}</code>: {why}
                      </li>
                    ))}
                  </ul>
                </Note>
              )}
            </Form>
          );
        }}
      </Loaded>
    </Dialog>
  );
}
