import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import { isCode } from '@eclitunnel/sdk';
import { client } from '../lib/client.js';
import { keys } from '../lib/keys.js';
import { useText } from '../lib/language.js';
import { Button, Confirm, Form, Loaded, Note, PageHead, useNotices } from '../ui/index.js';
import { changedMeanwhile, edited, patchOf, valuesOf, type Draft, type Settings, type Values } from './settings-fields.js';
import { Fields } from './settings-form.js';
import { texts } from './settings-texts.js';

// What is not saved outlives a look at another page; signing out loads the console anew.
let kept: Draft | undefined;

export default function SettingsPage(): ReactNode {
  const t = useText(texts);
  const query = useQuery({
    queryKey: keys.editedSettings,
    queryFn: async ({ signal }) => {
      const { data, etag } = await client.settings.get({ signal }).withResponse();
      return { data, etag };
    },
  });
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <Loaded query={query}>{({ data, etag }) => <Editor settings={data} etag={etag} />}</Loaded>
    </>
  );
}

function useDraft(): [Draft | undefined, (draft: Draft | undefined) => void] {
  const [draft, setState] = useState(kept);
  useEffect(() => {
    if (!draft) return;
    const ask = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener('beforeunload', ask);
    return () => removeEventListener('beforeunload', ask);
  }, [draft]);
  return [
    draft,
    (next) => {
      kept = next;
      setState(next);
    },
  ];
}

function Editor({ settings, etag }: { settings: Settings; etag: string | undefined }): ReactNode {
  const t = useText(texts);
  const { notify } = useNotices();
  const queries = useQueryClient();
  const [draft, setDraft] = useDraft();
  const [found] = useState(draft !== undefined);
  const [asking, setAsking] = useState(false);
  const different = useRef<HTMLDivElement>(null);
  const now = valuesOf(settings);
  const values = { ...now, ...draft?.changes };
  const others = draft ? changedMeanwhile(draft, now) : [];
  const count = Object.keys(draft?.changes ?? {}).length;

  async function save(): Promise<void> {
    if (!draft) return;
    try {
      const result = await client.settings.update(patchOf(draft.changes), { ifMatch: etag }).withResponse();
      queries.setQueryData(keys.editedSettings, { data: result.data, etag: result.etag });
      void queries.invalidateQueries({ queryKey: keys.siteRules });
    } catch (error) {
      if (isCode(error, 'precondition_failed')) {
        await queries.refetchQueries({ queryKey: keys.editedSettings });
        requestAnimationFrame(() => different.current?.scrollIntoView({ block: 'center' }));
      }
      throw error;
    }
    setDraft(undefined);
    notify(t.saved);
  }

  return (
    <div className="site-settings stack loose" data-changed={count > 0 ? true : undefined}>
      {settings.warnings.length > 0 && (
        <Note tone="warn">
          <h2 className="site-note-head">{t.warnings}</h2>
          {settings.warnings.map(({ code, message }) => (
            <div key={code}>
              {t.warningTexts[code] && <p>{t.warningTexts[code]}</p>}
              <p className={t.warningTexts[code] ? 'small' : undefined}>{message}</p>
            </div>
          ))}
        </Note>
      )}
      {found && draft && <Note live>{t.kept}</Note>}
      <Form
        wide
        submit={t.save}
        disabled={count === 0}
        messages={{ precondition_failed: t.conflict }}
        onSubmit={async () => {
          if (draft?.changes['features.tunnels'] === 'false') return setAsking(true);
          await save();
        }}
      >
        <Fields values={values} builtIn={settings.rules.builtIn} onChange={(name, value) => setDraft(edited(draft, now, name, value))} />
        {draft && others.length > 0 && (
          <div ref={different}>
            <Others names={others} before={draft.base} now={now} />
          </div>
        )}
        <div className="row site-unsaved" role="status">
          <span className={count > 0 ? 'warn' : 'faint'}>{count > 0 ? t.changes(count) : t.noChanges}</span>
          {count > 0 && (
            <Button compact kind="plain" onClick={() => setDraft(undefined)}>
              {t.discard}
            </Button>
          )}
        </div>
      </Form>
      {asking && (
        <Confirm title={t.off} action={t.offDo} messages={{ precondition_failed: t.conflict }} onConfirm={save} onClose={() => setAsking(false)}>
          <p>{t.offText}</p>
        </Confirm>
      )}
    </div>
  );
}

/** What others have changed since the draft was begun. */
function Others({ names, before, now }: { names: readonly string[]; before: Values; now: Values }): ReactNode {
  const t = useText(texts);
  const text = (value: string | undefined): string => (value === 'true' ? t.yes : value === 'false' ? t.no : ((t.creators as Record<string, string>)[value ?? ''] ?? (value || t.none)));
  const nameOf = (path: string): string => {
    const [, part, rule = ''] = path.split('.');
    const ruleName = (t.ruleNames as Record<string, string>)[rule];
    return t.names[path] ?? t.of(part === 'ceiling' ? t.ceiling : t.default, ruleName ?? path);
  };
  return (
    <Note tone="warn" live>
      <p>{t.others}</p>
      <ul>
        {names.map((name) => (
          <li key={name}>
            {nameOf(name)}: {t.was(text(before[name]), text(now[name]))}
          </li>
        ))}
      </ul>
    </Note>
  );
}
