import { useQuery, useQueryClient, type QueryKey } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { isCode, type FullResult, type RequestOptions, type Result, type Schemas } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Dialog, Form, Input, Loaded, numberOf, useNotices } from '../ui/index.js';
import { texts } from './texts.js';

type Quota = Schemas['Quota'];
const resources = ['devices', 'allocations', 'portsOutsideRange'] as const;

/** Whose quota it is. */
export type QuotaOwner = { userId: number } | { organisationId: number };

interface Access {
  key: QueryKey;
  read(options: RequestOptions): Result<Quota>;
  write(limits: Schemas['QuotaLimits'], options: RequestOptions): Promise<unknown>;
}

function accessOf(owner: QuotaOwner): Access {
  if ('userId' in owner) {
    const { userId: id } = owner;
    return { key: keys.userQuota(id), read: (options) => client.users.quota(id, options), write: (limits, options) => client.users.updateQuota(id, limits, options) };
  }
  const { organisationId: id } = owner;
  return { key: keys.organisationQuota(id), read: (options) => client.organisations.quota(id, options), write: (limits, options) => client.organisations.updateQuota(id, limits, options) };
}

export function useOwnersQuota(owner: QuotaOwner) {
  const { key, read } = accessOf(owner);
  return useQuery({
    queryKey: key,
    queryFn: async ({ signal }): Promise<Pick<FullResult<Quota>, 'data' | 'etag'>> => {
      const { data, etag } = await read({ signal }).withResponse();
      return { data, etag };
    },
  });
}

/** How much of a limit is used, in words. */
export function QuotaText({ use }: { use: Schemas['QuotaUse'] }): ReactNode {
  const t = useText(texts).quota;
  const format = useFormat();
  return (
    <>
      {use.limit === null ? t.unlimited(format.number(use.used)) : t.use(format.number(use.used), format.number(use.limit))}{' '}
      <span className="faint small">({use.own === null ? t.byDefault : t.ownLimit})</span>
    </>
  );
}

/** Changes the limits of a user or an organisation. */
export function QuotaDialog({ owner, name, onClose }: { owner: QuotaOwner; name: string; onClose(): void }): ReactNode {
  const t = useText(texts).quota;
  const { notify } = useNotices();
  const queries = useQueryClient();
  const quota = useOwnersQuota(owner);
  const { key, write } = accessOf(owner);

  async function save(data: FormData, { data: before, etag }: { data: Quota; etag: string | undefined }): Promise<void> {
    const changed = resources.filter((name) => numberOf(data, name) !== before[name].own);
    try {
      if (changed.length > 0) await write(Object.fromEntries(changed.map((name) => [name, numberOf(data, name)])), { ifMatch: etag });
    } catch (error) {
      // The hints below the fields then say what it is now.
      if (isCode(error, 'precondition_failed')) await quota.refetch();
      throw error;
    }
    await queries.invalidateQueries({ queryKey: key });
    if (changed.length > 0) notify(t.saved);
    onClose();
  }

  return (
    <Dialog title={t.title(name)} onClose={onClose}>
      <p className="faint">{t.about}</p>
      <Loaded query={quota}>
        {(read) => (
          <Form submit={t.save} onCancel={onClose} onSubmit={(data) => save(data, read)}>
            {resources.map((name) => (
              <Input key={name} label={t[name]} name={name} type="number" min={0} max={1_000_000_000} step={1} inputMode="numeric" defaultValue={read.data[name].own ?? ''} placeholder={read.data[name].own === null ? read.data[name].limit?.toString() : undefined} hint={<QuotaText use={read.data[name]} />} />
            ))}
          </Form>
        )}
      </Loaded>
    </Dialog>
  );
}
