import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { useAgentDownloads, useUser } from '../session/session.js';
import { Command, Note } from '../ui/index.js';
import type { Draft } from './draft.js';
import { buildImage, commandOf, programs, scripts, systems } from './systems.js';
import { texts } from './texts.js';

const sources = 'https://github.com/eclitunnel/eclitunnel';

interface CommandProps {
  draft: Draft;
  /** Whether the person has to log in on the machine, so that it is theirs. */
  own: boolean;
  onChange(changes: Partial<Draft>): void;
}

/** The command for the machine, and what it needs before that. */
export function CommandStep({ draft, own, onChange }: CommandProps): ReactNode {
  const t = useText(texts);
  const { system, name, tag } = draft;
  const user = useUser();
  const install = useAgentDownloads() && system !== 'docker';
  const providers = useQuery({ queryKey: keys.providers, queryFn: ({ signal }) => client.auth.providers({ signal }), staleTime: Infinity, enabled: own });
  const login = own && providers.data?.localAccounts ? user.email : undefined;
  const link = (
    <a href={sources} target="_blank" rel="noopener">
      {t.program.sources}
    </a>
  );
  return (
    <>
      <fieldset className="start-systems">
        <legend className="unseen">{t.system}</legend>
        {systems.map((one) => (
          <label key={one}>
            <input type="radio" name="system" value={one} checked={one === system} onChange={() => onChange({ system: one })} />
            <span>{t.systems[one]}</span>
          </label>
        ))}
      </fieldset>
      {system === 'docker' ? (
        <>
          <p className="small faint">
            {t.program.getImage}
            {link}
            {t.program.image}
          </p>
          <Command text={buildImage} label={t.commandLabel} />
        </>
      ) : install ? null : (
        <p className="small faint">
          {t.program.get}
          {link}
          {t.program.build(programs[system])}
          <code>{system === 'windows' ? 'eclitunnel.exe' : 'eclitunnel'}</code>.
        </p>
      )}
      <p>{install ? t.runInstall[system] : t.run[system]}</p>
      <Command text={commandOf({ system, panel: location.origin, name: name.trim(), tag, login, install })} label={t.commandLabel} />
      {own && providers.data?.localAccounts === false && (
        <Note>
          <p>
            {t.key.before}
            <Link href="/account/keys">{t.key.link}</Link>
            {t.key.after}
            <code>ECLITUNNEL_SESSION_TOKEN</code>.
          </p>
        </Note>
      )}
      {install ? (
        <p className="small faint">
          {t.installs}
          <a href={scripts[system]} target="_blank" rel="noopener">
            {t.script}
          </a>
        </p>
      ) : (
        <p className="small faint">{system === 'docker' ? t.staysDocker : t.stays}</p>
      )}
    </>
  );
}
