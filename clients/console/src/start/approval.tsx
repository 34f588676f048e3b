import type { UseQueryResult } from '@tanstack/react-query';
import { useApproveDevice, useDenyDevice } from '@eclitunnel/sdk/react';
import type { Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { PendingFacts } from '../approve/facts.js';
import { NobodyFound, OwnerFields, ownerOf } from '../approve/owner.js';
import { client } from '../lib/client.js';
import { useNow } from '../lib/clock.js';
import { useText } from '../lib/language.js';
import { Button, ButtonLink, ErrorNote, Form, Input, Note, State, textOf } from '../ui/index.js';
import type { Asking } from './asking.js';
import { texts } from './texts.js';

interface ApprovalProps {
  asking: UseQueryResult<Asking>;
  /** What the person calls the machine; empty for what it calls itself. */
  name: string;
  onApproved(id: string): void;
}

/** Waits for the machine that runs the command, shows what asks, and has it approved. */
export function ApprovalStep({ asking, name, onApproved }: ApprovalProps): ReactNode {
  const t = useText(texts);
  const [entered, setEntered] = useState<Schemas['PendingEnrollment']>();
  const [refused, setRefused] = useState(false);
  const data = asking.data;
  const pending = entered ?? (data?.state === 'waiting' ? data.pending : undefined);

  if (pending) {
    return (
      <Asks
        key={pending.userCode}
        pending={pending}
        name={name}
        onApproved={onApproved}
        onRefused={() => {
          setEntered(undefined);
          setRefused(true);
          void asking.refetch();
        }}
      />
    );
  }
  return (
    <>
      <div role="status" className="stack tight">
        {data?.state === 'approved' ? (
          <>
            <p>{t.already}</p>
            <p>
              <ButtonLink href="/devices">{t.toDevices}</ButtonLink>
            </p>
          </>
        ) : (
          <>
            <p>
              <State>{t.waiting}</State>
            </p>
            <p className="small faint">{data?.state === 'expired' ? t.expired : refused ? t.refused : t.waitingText}</p>
          </>
        )}
      </div>
      {asking.isError && <ErrorNote error={asking.error} />}
      <details className="start-older">
        <summary>{t.older}</summary>
        <Form submit={t.find} messages={t.messages} onSubmit={async (form) => setEntered(await client.enrollment.pending({ userCode: textOf(form, 'code') }, { retries: 0 }))}>
          <Input label={t.code} name="code" hint={t.olderText} required maxLength={32} placeholder="CDFG-2345" autoComplete="off" autoCapitalize="characters" spellCheck={false} />
        </Form>
      </details>
    </>
  );
}

interface AsksProps {
  pending: Schemas['PendingEnrollment'];
  name: string;
  onApproved(id: string): void;
  onRefused(): void;
}

function Asks({ pending, name, onApproved, onRefused }: AsksProps): ReactNode {
  const t = useText(texts);
  const approve = useApproveDevice();
  const deny = useDenyDevice();
  const [nobodyFound, setNobodyFound] = useState(false);
  const expired = useNow() >= Date.parse(pending.expiresAt);
  return (
    <div className="stack">
      <Note live>
        <p>
          <strong>{t.asks(pending.name)}</strong>
        </p>
        <p>{t.compare}</p>
        <p className="start-code">{pending.userCode}</p>
      </Note>
      <PendingFacts pending={pending} />
      <Form
        submit={t.approve}
        messages={t.messages}
        disabled={expired}
        onSubmit={async (data) => {
          setNobodyFound(false);
          try {
            const owner = await ownerOf(data);
            const { device } = await approve.mutateAsync({ userCode: pending.userCode, ...(name && { name }), ...owner });
            onApproved(device.id);
          } catch (error) {
            if (!(error instanceof NobodyFound)) throw error;
            setNobodyFound(true);
          }
        }}
      >
        <OwnerFields pending={pending} nobodyFound={nobodyFound} quiet />
      </Form>
      {deny.isError && <ErrorNote error={deny.error} messages={t.messages} />}
      <div className="row">
        <Button kind="danger" busy={deny.isPending} onClick={() => deny.mutate({ userCode: pending.userCode }, { onSuccess: onRefused })}>
          {t.refuse}
        </Button>
      </div>
    </div>
  );
}
