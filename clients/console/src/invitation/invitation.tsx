import { useQuery, useQueryClient } from '@tanstack/react-query';
import { tunnelQueries } from '@eclitunnel/sdk/react';
import { isCode, type Schemas } from '@eclitunnel/sdk';
import { useState, type ReactNode } from 'react';
import { useLocation } from 'wouter';
import { client, isSignedOut } from '../lib/client.js';
import { useFormat } from '../lib/format.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { takeLinkToken, useNextLink } from '../session/link-token.js';
import { Button, ButtonLink, ErrorNote, Form, Loaded, Loading, Note, PageHead } from '../ui/index.js';
import { texts } from './texts.js';

// Who has to sign in first comes back without what follows the #: this tab keeps it
// meanwhile, and forgets it when it is of no more use.
const storageKey = 'eclitunnel.invitation';
const taken = takeLinkToken();
if (taken) sessionStorage.setItem(storageKey, taken);
const token = sessionStorage.getItem(storageKey) ?? '';

/** The page of a link with which a person becomes a member of an organisation. */
export default function Invitation(): ReactNode {
  const t = useText(texts);
  const format = useFormat();
  const [joined, setJoined] = useState<Schemas['Organisation']>();
  useNextLink();
  const invitation = useQuery({
    queryKey: keys.invitation,
    queryFn: async ({ signal }) => {
      try {
        return await client.invitations.lookUp({ token }, { signal });
      } catch (error) {
        if (isCode(error, 'not_found')) sessionStorage.removeItem(storageKey);
        throw error;
      }
    },
    enabled: token !== '' && !joined,
    staleTime: Infinity,
  });

  if (joined) return <Joined organisation={joined} />;
  if (!token) {
    return (
      <>
        <PageHead title={t.title} />
        <Note tone="bad">{t.wholeLink}</Note>
      </>
    );
  }
  return (
    <>
      <PageHead title={invitation.data ? t.invited(invitation.data.organisation) : t.title} />
      <Loaded query={invitation} messages={{ not_found: t.used }}>
        {({ role, expiresAt }) => (
          <>
            <p>{t.role[role]}</p>
            <p className="small faint">{t.until(format.dateTime(expiresAt))}</p>
            <Accept
              onJoined={(organisation) => {
                sessionStorage.removeItem(storageKey);
                setJoined(organisation);
              }}
            />
          </>
        )}
      </Loaded>
    </>
  );
}

function Accept({ onJoined }: { onJoined(organisation: Schemas['Organisation']): void }): ReactNode {
  const t = useText(texts);
  const queries = useQueryClient();
  const [, navigate] = useLocation();
  const session = useQuery(tunnelQueries(client).session());
  const toSignIn = (): void => navigate(`/login?${new URLSearchParams({ returnTo: '/invitation' })}`);

  if (isSignedOut(session.error)) {
    return (
      <>
        <p>{t.signInFirst}</p>
        <div className="row">
          <Button kind="primary" onClick={toSignIn}>
            {t.signIn}
          </Button>
        </div>
        <p className="small faint">{t.noAccount}</p>
      </>
    );
  }
  if (!session.data) return session.isError ? <ErrorNote error={session.error} onAgain={() => void session.refetch()} /> : <Loading />;
  return (
    <>
      <p>{t.as(session.data.user.email)}</p>
      <Form
        submit={t.accept}
        messages={{ not_found: t.used, forbidden: t.notYours }}
        onSubmit={async () => {
          onJoined(await client.invitations.accept({ token }, { idempotencyKey: true }));
          void queries.invalidateQueries({ queryKey: keys.all });
        }}
      />
      <p>
        <button
          type="button"
          className="link"
          onClick={() =>
            void client.auth.logout().catch(console.warn).then(() => {
              queries.removeQueries({ queryKey: keys.all });
              toSignIn();
            })
          }
        >
          {t.other}
        </button>
      </p>
    </>
  );
}

function Joined({ organisation: { id, name, role } }: { organisation: Schemas['Organisation'] }): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead key="joined" title={t.done(name)} about={t.doneText[(role ?? 'member') as keyof typeof t.doneText]} />
      <div className="row">
        <ButtonLink kind="primary" href={`/organisations/${id}`}>
          {t.open}
        </ButtonLink>
        <ButtonLink href="/">{t.home}</ButtonLink>
      </div>
    </>
  );
}
