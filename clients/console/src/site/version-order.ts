import type { Device } from '@eclitunnel/sdk';

function numbersOf(version: string): readonly number[] | undefined {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version);
  return match?.slice(1).map(Number);
}

/** Compares the numbers of two versions; undefined if one of them is no release, such as a build of one's own. */
export function compareVersions(a: string, b: string): number | undefined {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  if (!left || !right) return undefined;
  for (const [i, number] of left.entries()) {
    const difference = number - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Whether a device runs an older version than the panel. */
export function isBehind({ agentVersion }: Pick<Device, 'agentVersion'>, panel: string | undefined): boolean {
  return !!agentVersion && !!panel && (compareVersions(agentVersion, panel) ?? 0) < 0;
}
