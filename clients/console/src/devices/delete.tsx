import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { Device } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useIsAdmin } from '../session/session.js';
import { Confirm, Dialog, Loaded, useNotices } from '../ui/index.js';
import { actsTexts } from './acts-texts.js';

interface DeleteProps {
  device: Device;
  onClose(): void;
  /** Called before it is deleted, and with false if that fails. */
  onDeleting(deleting: boolean): void;
  onDeleted(): void;
}

/** Asks before a device goes with its ports, or before a machine that waits is refused. */
export function DeleteDevice(props: DeleteProps): ReactNode {
  return props.device.approved ? <Delete {...props} /> : <Refuse {...props} />;
}

function useRemove({ device: { id }, onDeleting, onDeleted }: DeleteProps, done: string): () => Promise<void> {
  const queries = useQueryClient();
  const { notify } = useNotices();
  return async () => {
    onDeleting(true);
    try {
      await client.devices.delete(id);
    } catch (error) {
      onDeleting(false);
      throw error;
    }
    onDeleted();
    notify(done);
    // What was read of it would be asked for again.
    queries.removeQueries({ queryKey: keys.device(id) });
    for (const queryKey of [keys.devices, keys.allocations, keys.pendingDevices, keys.quota, keys.pages('devices')]) void queries.invalidateQueries({ queryKey });
  };
}

function Refuse(props: DeleteProps): ReactNode {
  const t = useText(actsTexts);
  const { name } = props.device;
  const remove = useRemove(props, t.refused(name));
  return (
    <Confirm title={t.refuseTitle(name)} action={t.refuse} onClose={props.onClose} onConfirm={remove}>
      <p>{t.refuseText}</p>
    </Confirm>
  );
}

function Delete(props: DeleteProps): ReactNode {
  const t = useText(actsTexts);
  const admin = useIsAdmin();
  const { id, name, kind } = props.device;
  const remove = useRemove(props, t.deleted(name));
  const by = kind === 'server' ? { serverId: id } : { deviceId: id };
  const count = useQuery({
    queryKey: keys.portCount(by),
    queryFn: async ({ signal }) => {
      let count = 0;
      for await (const _ of client.allocations.all({ ...by, limit: 1000 }, { signal })) count++;
      return count;
    },
    gcTime: 0,
  });
  if (count.data === undefined) {
    return (
      <Dialog title={t.deleteTitle(name)} onClose={props.onClose}>
        <Loaded query={count}>{() => null}</Loaded>
      </Dialog>
    );
  }
  return (
    <Confirm title={t.deleteTitle(name)} action={t.delete} name={name.trim()} onClose={props.onClose} onConfirm={remove}>
      <p>
        <strong>{kind === 'server' ? t.deleteServerPorts(count.data) : t.deletePorts(count.data)}</strong>
      </p>
      {kind === 'server' && !admin && <p>{t.deleteHidden}</p>}
      <p>{t.deleteText}</p>
    </Confirm>
  );
}
