import { useQueryClient } from '@tanstack/react-query';
import { isCode, type Connection } from '@eclitunnel/sdk';
import { useCloseConnection } from '@eclitunnel/sdk/react';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Dialog, Form, Select, textOf, useNotices } from '../ui/index.js';
import { texts } from './players-texts.js';

/** Asks for how long a player whose connection is cut off is kept out, and does both. */
export function CutOff({ connection, onCut, onClose }: { connection: Connection; onCut(connection: Connection): void; onClose(): void }): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const { notify } = useNotices();
  const queries = useQueryClient();
  const close = useCloseConnection();
  const { id, allocationId, sourceAddress: address, protocol } = connection;
  const changed = (): Promise<void> => queries.invalidateQueries({ queryKey: keys.keptOut(allocationId) });

  async function cut(data: FormData): Promise<void> {
    const keepOutSeconds = Number(textOf(data, 'keepOutSeconds'));
    const until = Date.now() + keepOutSeconds * 1000;
    try {
      await close.mutateAsync({ id, keepOutSeconds });
      onCut(connection);
      if (keepOutSeconds === 0) notify(t.cut(address));
      else notify(t.keptOutUntil(address, keepOutSeconds < 86_400 ? format.time(until) : format.dateTime(until)), () => client.allocations.readmit(allocationId, { source: address }).finally(changed));
    } catch (error) {
      if (!isCode(error, 'not_found')) throw error;
      notify(t.gone);
    }
    void changed();
    onClose();
  }

  return (
    <Dialog title={t.cutTitle(address)} onClose={onClose}>
      <p>{t.cutText}</p>
      {protocol === 'udp' && <p>{t.udpHint}</p>}
      <Form submit={t.cutOff} kind="danger primary" messages={{ conflict: t.tooManyKeptOut }} onCancel={onClose} onSubmit={cut}>
        <Select name="keepOutSeconds" label={t.keepOut} hint={t.keepOutHint} defaultValue={protocol === 'udp' ? '600' : '0'}>
          {Object.entries(t.keepOutFor).map(([seconds, text]) => (
            <option key={seconds} value={seconds}>
              {text}
            </option>
          ))}
        </Select>
      </Form>
    </Dialog>
  );
}
