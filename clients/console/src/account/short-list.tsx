import type { UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Button, Confirm, Empty, Loaded, useNotices } from '../ui/index.js';

interface ShortListProps<T> {
  query: UseQueryResult<T[]>;
  texts: Readonly<Record<'create' | 'none' | 'noneText', string>>;
  onCreate(): void;
  children: (items: T[]) => ReactNode;
}

/** A list with the button that adds to it; while it is empty, it says what that is for. */
export function ShortList<T>({ query, texts: t, onCreate, children }: ShortListProps<T>): ReactNode {
  const create = (
    <Button kind="primary" onClick={onCreate}>
      {t.create}
    </Button>
  );
  return (
    <Loaded query={query}>
      {(items) =>
        items.length === 0 ? (
          <Empty title={t.none} action={create}>
            {t.noneText}
          </Empty>
        ) : (
          <div className="stack">
            <div className="row end">{create}</div>
            {children(items)}
          </div>
        )
      }
    </Loaded>
  );
}

interface DeleteProps {
  texts: { delete: string; deleted: string; deleteText: string; deleteTitle(name: string): string };
  name: string;
  onDelete(): Promise<unknown>;
  onClose(): void;
}

/** Asks whether to delete one of a list. */
export function DeleteOne({ texts: t, name, onDelete, onClose }: DeleteProps): ReactNode {
  const { notify } = useNotices();
  return (
    <Confirm
      title={t.deleteTitle(name)}
      action={t.delete}
      onClose={onClose}
      onConfirm={async () => {
        await onDelete();
        notify(t.deleted);
      }}
    >
      <p>{t.deleteText}</p>
    </Confirm>
  );
}
