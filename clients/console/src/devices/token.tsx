import { useRegenerateDeviceToken } from '@eclitunnel/sdk/react';
import type { Device } from '@eclitunnel/sdk';
import { useRef, useState, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Button, Command, Confirm, CopyButton, Dialog, TextArea } from '../ui/index.js';
import { actsTexts } from './acts-texts.js';

/** Replaces a device's token, and shows the new one, once. */
export function NewToken({ device: { id, name }, onClose }: { device: Device; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const regenerate = useRegenerateDeviceToken();
  const [token, setToken] = useState<string>();
  const made = useRef(false);
  if (token !== undefined) return <Shown token={token} onClose={onClose} />;
  return (
    <Confirm
      title={t.tokenTitle}
      action={t.makeToken}
      // The question closes when it is answered; then the token is shown.
      onClose={() => made.current || onClose()}
      onConfirm={async () => {
        const { token } = await regenerate.mutateAsync(id);
        made.current = true;
        setToken(token);
      }}
    >
      <p>{t.tokenText(name)}</p>
      <p>{t.tokenWhen}</p>
    </Confirm>
  );
}

/** Whether others on the network could read what the agent sends to a panel at this address. */
function isOpen({ protocol, hostname }: Location): boolean {
  return protocol === 'http:' && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}

function Shown({ token, onClose }: { token: string; onClose(): void }): ReactNode {
  const t = useText(actsTexts);
  const install = `eclitunnel enroll --panel ${location.origin}${isOpen(location) ? ' --insecure' : ''} --token-file device.token`;
  return (
    <Dialog title={t.newTokenTitle} onClose={onClose}>
      <p>{t.tokenOnce}</p>
      <div className="stack tight devices-token">
        <TextArea label={t.token} name="token" readOnly rows={4} spellCheck={false} value={token} onFocus={(event) => event.target.select()} />
        <div>
          <CopyButton text={token} label={t.tokenLabel} />
        </div>
      </div>
      <ol className="stack tight devices-steps">
        <li>{t.tokenStep1}</li>
        <li>
          {t.tokenStep2}
          <Command text={install} label={t.commandLabel} />
        </li>
        <li>
          {t.tokenStep3}
          <Command text="eclitunnel run" label={t.commandLabel} />
        </li>
      </ol>
      <p className="small faint">{t.tokenElse}</p>
      <div className="row">
        <Button kind="primary" onClick={onClose}>
          {t.tokenDone}
        </Button>
      </div>
    </Dialog>
  );
}
