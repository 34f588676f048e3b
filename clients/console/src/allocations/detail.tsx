import type { AllocationDetail } from '@eclitunnel/sdk';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState, type ReactNode } from 'react';
import { Link, Route, Switch, useLocation } from 'wouter';
import { client } from '../lib/client.js';
import { useExplain } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { Detailed } from '../shell/detailed.js';
import { NotFound } from '../shell/not-found.js';
import { Button, Loading, Menu, MenuItem, MenuLine, PageHead, Tabs, useNotices } from '../ui/index.js';
import { ChangePort, MovePort } from './change.js';
import { useActs, useKnownDevice, useMayManage, useServers } from './data.js';
import { useMenuFocus } from './menu-focus.js';
import { Overview } from './overview.js';
import { DeletePort } from './row-menu.js';
import { Rules } from './rules.js';
import { texts } from './texts.js';

const PlayersSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).PlayersSection }));
const UsageSection = lazy(async () => ({ default: (await import('../traffic/sections.js')).UsageSection }));

/** A port: its tabs. */
export function Detail({ id }: { id: number }): ReactNode {
  const t = useText(texts);
  // Events tell what changes, but not how many players were refused.
  const query = useQuery({ ...tunnelQueries(client).allocation(id), refetchInterval: 10_000 });
  return (
    <Detailed query={query} list="/allocations" texts={t}>
      {(allocation) => <Page allocation={allocation} />}
    </Detailed>
  );
}

function Page({ allocation }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(texts);
  const device = useKnownDevice(allocation.deviceId);
  const may = useMayManage()(device);
  const at = `/allocations/${allocation.id}`;
  const tabs = [
    { href: at, text: t.overview },
    { href: `${at}/players`, text: t.players },
    { href: `${at}/traffic`, text: t.traffic },
    { href: `${at}/rules`, text: t.rules },
  ];
  return (
    <>
      <PageHead title={allocation.name || t.unnamedPort(allocation.port)} crumbs={<Link href="/allocations">{t.title}</Link>} actions={may === true && <Acts allocation={allocation} />} />
      <Tabs label={t.tabs} tabs={tabs} />
      <Suspense fallback={<Loading />}>
        <Switch>
          <Route path={at}>
            <Overview allocation={allocation} device={device} may={may} />
          </Route>
          <Route path={`${at}/players`}>
            <PlayersSection allocationId={allocation.id} />
          </Route>
          <Route path={`${at}/traffic`}>
            <UsageSection allocationId={allocation.id} />
          </Route>
          <Route path={`${at}/rules`}>
            <Rules allocation={allocation} device={device} may={may} />
          </Route>
          <Route>
            <NotFound />
          </Route>
        </Switch>
      </Suspense>
    </>
  );
}

/** The buttons of the page's head, for who may change the port. */
function Acts({ allocation }: { allocation: AllocationDetail }): ReactNode {
  const t = useText(texts);
  const [, navigate] = useLocation();
  const { pause, resume } = useActs();
  const { notify } = useNotices();
  const explain = useExplain();
  const others = useServers().data?.some(({ id }) => id !== allocation.serverId) ?? false;
  const [busy, setBusy] = useState(false);
  const [open, setOpen] = useState<'change' | 'move' | 'delete'>();
  const menu = useMenuFocus(open === 'move' || open === 'delete');
  const close = (): void => setOpen(undefined);
  const { id, enabled } = allocation;

  async function toggle(): Promise<void> {
    setBusy(true);
    try {
      await (enabled ? pause(allocation) : resume(allocation));
    } catch (error) {
      notify(explain(error).message);
    } finally {
      setBusy(false);
    }
  }

  return (
    <>
      <Button kind={enabled ? '' : 'primary'} busy={busy} onClick={() => void toggle()}>
        {enabled ? t.pause : t.resume}
      </Button>
      <Button onClick={() => setOpen('change')}>{t.edit}</Button>
      <span ref={menu}>
        <Menu>
          {others && <MenuItem onSelect={() => setOpen('move')}>{t.moveAction}</MenuItem>}
          {others && <MenuLine />}
          <MenuItem bad onSelect={() => setOpen('delete')}>
            {t.delete}
          </MenuItem>
        </Menu>
      </span>
      {open === 'change' && <ChangePort id={id} onClose={close} />}
      {open === 'move' && <MovePort id={id} serverId={allocation.serverId} onClose={close} />}
      {open === 'delete' && <DeletePort allocation={allocation} onClose={close} onDeleted={() => navigate('/allocations')} />}
    </>
  );
}
