import type { ReactNode } from 'react';

/** A few numbers side by side, each below what it is. One that is not known yet is a dash. */
export function Figures({ figures, hint }: { figures: readonly { label: string; value: ReactNode }[]; hint?: string | undefined }): ReactNode {
  return (
    <div>
      <dl className="traffic-figures">
        {figures.map(({ label, value }) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value ?? '–'}</dd>
          </div>
        ))}
      </dl>
      {hint && <p className="small faint">{hint}</p>}
    </div>
  );
}
