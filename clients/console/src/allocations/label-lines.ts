import type { Schemas } from '@eclitunnel/sdk';

export type Labels = Schemas['Labels'];

/**
 * Writes labels as people edit them: a line for each, with an equals sign unless the value is empty. While a panel is
 * being upgraded, replicas of the version before send none.
 */
export function linesOf(labels: Labels | undefined): string[] {
  return Object.entries(labels ?? {})
    .map(([key, value]) => (value === '' ? key : `${key}=${value}`))
    .sort();
}

/** Reads labels that somebody has entered. The panel says what is wrong with them. */
export function labelsOf(text: string): Labels {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf('=');
      return at < 0 ? [line.trim(), ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );
}

/** The list's filter for a label, which is also that of the panel. */
export function filterOf(key: string, value: string): string {
  return `${key}=${value}`;
}
