import { useState, type ReactNode } from 'react';
import { useApproveDevice, useDenyDevice } from '@eclitunnel/sdk/react';
import type { Schemas } from '@eclitunnel/sdk';
import { useNow } from '../lib/clock.js';
import { useText } from '../lib/language.js';
import { Button, Check, ErrorNote, Form, Input, textOf } from '../ui/index.js';
import { PendingFacts } from './facts.js';
import { NobodyFound, OwnerFields, ownerOf } from './owner.js';
import { texts } from './texts.js';

interface DecideProps {
  pending: Schemas['PendingEnrollment'];
  /** Whether the code came in the page's address: then the person says that they have compared it. */
  fromLink: boolean;
  onApproved(device: Schemas['Device']): void;
  onRefused(): void;
  onAnother(): void;
}

/** Shows what asks, and has a person decide about it. */
export function Decide({ pending, fromLink, onApproved, onRefused, onAnother }: DecideProps): ReactNode {
  const t = useText(texts);
  const approve = useApproveDevice();
  const deny = useDenyDevice();
  const [compared, setCompared] = useState(!fromLink);
  const [nobodyFound, setNobodyFound] = useState(false);
  const expired = useNow() >= Date.parse(pending.expiresAt);
  return (
    <div className="sheet stack">
      <PendingFacts pending={pending} />
      <p className="small faint">{t.itself}</p>
      <Form
        submit={t.approve}
        messages={t.messages}
        disabled={!compared || expired}
        onSubmit={async (data) => {
          setNobodyFound(false);
          try {
            const owner = await ownerOf(data);
            const { device } = await approve.mutateAsync({ userCode: pending.userCode, name: textOf(data, 'name'), ...owner });
            onApproved(device);
          } catch (error) {
            if (!(error instanceof NobodyFound)) throw error;
            setNobodyFound(true);
          }
        }}
      >
        <Input label={t.name} name="name" defaultValue={pending.name} required maxLength={100} autoComplete="off" />
        <OwnerFields pending={pending} nobodyFound={nobodyFound} />
        {fromLink && <Check label={t.compared(pending.userCode)} hint={t.comparedHint} checked={compared} onChange={(event) => setCompared(event.target.checked)} />}
      </Form>
      {deny.isError && <ErrorNote error={deny.error} messages={t.messages} />}
      <div className="row">
        <Button kind="danger" busy={deny.isPending} onClick={() => deny.mutate({ userCode: pending.userCode }, { onSuccess: onRefused })}>
          {t.refuse}
        </Button>
        <Button kind="plain" onClick={onAnother}>
          {t.another}
        </Button>
      </div>
    </div>
  );
}
