import { isCode, type Device, type Schemas } from '@eclitunnel/sdk';
import { useUpdateDevice } from '@eclitunnel/sdk/react';
import { useState } from 'react';
import { readVersion, useRereadPages, type Version } from './data.js';

export interface Changing {
  /** The device as it was read last. */
  device: Device;
  /** Whether somebody else has changed it since the form was opened. */
  overtaken: boolean;
  /** Saves a change if nobody else has changed the device since it was read last. */
  save(body: Schemas['DevicePatch']): Promise<void>;
}

/** Changes a device; where somebody else was faster it is read again, and saving again goes by that. */
export function useChanging(version: Version): Changing {
  const update = useUpdateDevice();
  const reread = useRereadPages();
  const [last, setLast] = useState(version);
  return {
    device: last.device,
    overtaken: last !== version,
    async save(body) {
      const { id } = version.device;
      try {
        await update.mutateAsync({ id, body, ifMatch: last.etag });
      } catch (error) {
        if (isCode(error, 'precondition_failed')) setLast(await readVersion(id));
        throw error;
      }
      await reread();
    },
  };
}
