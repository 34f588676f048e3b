import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Command } from '../ui/index.js';
import type { Draft } from './draft.js';
import { buildImage, commandOf, programs, systems } from './systems.js';
import { texts } from './texts.js';

const sources = 'https://github.com/eclitunnel/eclitunnel';

interface CommandProps {
  draft: Draft;
  /** Who logs in to enroll, by email. */
  login: string | undefined;
  onChange(changes: Partial<Draft>): void;
}

/** The command for the machine, and what it needs before that. */
export function CommandStep({ draft, login, onChange }: CommandProps): ReactNode {
  const t = useText(texts);
  const { system, name, tag } = draft;
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
      ) : (
        <p className="small faint">
          {t.program.get}
          {link}
          {t.program.build(programs[system])}
          <code>{system === 'windows' ? 'eclitunnel.exe' : 'eclitunnel'}</code>.
        </p>
      )}
      <p>{t.run[system]}</p>
      <Command text={commandOf({ system, panel: location.origin, name: name.trim(), tag, login })} label={t.commandLabel} />
      <p className="small faint">{system === 'docker' ? t.staysDocker : t.stays}</p>
    </>
  );
}
