import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { useText } from '../lib/language.js';
import { useQueryParameters } from '../lib/url.js';
import { Button, TextArea } from '../ui/index.js';
import { filterOf, linesOf, type Labels } from './label-lines.js';
import { texts } from './texts.js';

/** The labels of a port, each a link to the ports that have it too. */
export function LabelLinks({ labels }: { labels: Labels }): ReactNode {
  const t = useText(texts);
  return (
    <ul className="allocations-labels">
      {Object.entries(labels)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => (
          <li key={key}>
            <Link href={`/allocations?label=${encodeURIComponent(filterOf(key, value))}`} title={t.withLabel}>
              {value === '' ? key : `${key}=${value}`}
            </Link>
          </li>
        ))}
    </ul>
  );
}

/** The label by which the list is filtered, with a button that ends it. */
export function LabelFilter(): ReactNode {
  const t = useText(texts);
  const [parameters, setParameters] = useQueryParameters();
  const labels = parameters.getAll('label');
  return (
    labels.length > 0 && (
      <p className="row tight allocations-label-filter">
        <span>
          {t.filteredByLabel} <code>{labels.join(', ')}</code>
        </span>
        <Button onClick={() => setParameters({ label: undefined, page: undefined })}>{t.anyLabel}</Button>
      </p>
    )
  );
}

/** The field for labels. */
export function LabelsField({ labels }: { labels?: Labels }): ReactNode {
  const t = useText(texts);
  const lines = linesOf(labels);
  return (
    <TextArea
      name="labels"
      label={t.labels}
      hint={t.labelsHint}
      defaultValue={lines.join('\n')}
      rows={Math.min(Math.max(lines.length, 2), 8)}
      maxLength={4000}
      spellCheck={false}
      autoComplete="off"
      autoCapitalize="none"
    />
  );
}
