import { useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import { useText } from '../lib/language.js';
import { Button, ButtonLink, Empty, Loaded, Loading, PageHead } from '../ui/index.js';
import { CreatePort } from './create.js';
import { useClients, useMayManage } from './data.js';
import { PortOpened } from './opened.js';
import type { Opened } from './opening.js';
import { texts } from './texts.js';

/** The page on which a port is opened. */
export function NewPort(): ReactNode {
  const t = useText(texts);
  const devices = useClients();
  const mayManage = useMayManage();
  const [opened, setOpened] = useState<Opened>();
  const crumbs = <Link href="/allocations">{t.title}</Link>;
  if (opened) {
    return (
      <>
        <PageHead title={t.newTitle} crumbs={crumbs} />
        <PortOpened opened={opened} />
        <div className="row">
          <ButtonLink kind="primary" href={`/allocations/${opened.allocations[0]?.id}`}>
            {t.toPort}
          </ButtonLink>
          <Button onClick={() => setOpened(undefined)}>{t.another}</Button>
        </div>
      </>
    );
  }
  return (
    <>
      <PageHead title={t.newTitle} crumbs={crumbs} about={t.newText} />
      <Loaded query={devices} messages={{ feature_disabled: t.off }}>
        {(all) =>
          all.some(mayManage) ? (
            <CreatePort onCreated={setOpened} />
          ) : all.some((device) => mayManage(device) === undefined) ? (
            <Loading />
          ) : (
            <Empty title={t.noDevice} action={<ButtonLink kind="primary" href="/start">{t.connectDevice}</ButtonLink>}>
              {all.length > 0 ? t.noOwnDeviceText : t.noDeviceText}
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}
