import { Component, type ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Button, Loading } from '../ui/index.js';
import { useReload } from './reload.js';
import { texts } from './texts.js';

/** Keeps a fault of one page from taking the others with it. */
export class PageErrors extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: undefined };

  static getDerivedStateFromError(error: unknown): { error: unknown } {
    return { error };
  }

  override render(): ReactNode {
    return this.state.error === undefined ? this.props.children : <Broken error={this.state.error} />;
  }
}

function Broken({ error }: { error: unknown }): ReactNode {
  const t = useText(texts);
  // A part of the console of an earlier version is not served any more.
  const updated = error instanceof Error && /\bimport|\bmodule|\bpreload/i.test(error.message);
  const reload = useReload();
  if (reload === 'pending') return <Loading />;
  return (
    <div className="empty sheet" role="alert">
      <h1>{t.broken}</h1>
      <p>{!updated ? t.brokenText : reload === 'unreachable' ? t.unloaded : t.updated}</p>
      <Button kind="primary" onClick={() => location.reload()}>
        {t.reload}
      </Button>
    </div>
  );
}
