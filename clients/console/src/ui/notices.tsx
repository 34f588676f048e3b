import { createContext, useCallback, useContext, useMemo, useRef, useState, type ReactNode } from 'react';
import { useExplain } from '../lib/errors.js';
import { useText } from '../lib/language.js';
import { texts } from './texts.js';

interface Notice {
  id: number;
  text: string;
  undo: (() => Promise<unknown>) | undefined;
}

interface Notices {
  /** Says what was done, for some seconds; with `undo`, a button takes it back. */
  notify(text: string, undo?: () => Promise<unknown>): void;
}

const Context = createContext<Notices>({ notify: () => undefined });

export function useNotices(): Notices {
  return useContext(Context);
}

/** How long a notice stays, in milliseconds; one that can be undone stays longer. */
const stayMs = { plain: 5000, undo: 10_000 };

export function NoticesProvider({ children }: { children: ReactNode }): ReactNode {
  const t = useText(texts);
  const explain = useExplain();
  const [notices, setNotices] = useState<Notice[]>([]);
  const last = useRef(0);
  const drop = useCallback((id: number) => setNotices((all) => all.filter((one) => one.id !== id)), []);
  const notify = useCallback(
    (text: string, undo?: () => Promise<unknown>) => {
      const id = ++last.current;
      setNotices((all) => [...all.slice(-2), { id, text, undo }]);
      setTimeout(() => drop(id), undo ? stayMs.undo : stayMs.plain);
    },
    [drop],
  );

  async function take({ id, undo }: Notice): Promise<void> {
    drop(id);
    try {
      await undo?.();
    } catch (error) {
      notify(explain(error).message);
    }
  }

  const value = useMemo(() => ({ notify }), [notify]);
  return (
    <Context value={value}>
      {children}
      <div className="notices" role="status">
        {notices.map((notice) => (
          <div className="notice" key={notice.id}>
            <span>{notice.text}</span>
            {notice.undo && (
              <button type="button" onClick={() => void take(notice)}>
                {t.undo}
              </button>
            )}
          </div>
        ))}
      </div>
    </Context>
  );
}
