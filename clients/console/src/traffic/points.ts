import type { Schemas } from '@eclitunnel/sdk';
import { stepAfter, stepStart, type Step } from './ranges.js';

export type Sums = Schemas['UsageSums'];
type Point = Schemas['UsagePoint'];

/** What was carried in one step of a chart. */
export interface Slot extends Sums {
  /** The start of the step, in milliseconds. */
  at: number;
}

export const noUsage: Sums = { downloadBytes: 0, uploadBytes: 0, downloadDatagrams: 0, uploadDatagrams: 0, joins: 0, peakPlayers: 0 };

/** The usage of two times together. There were never more players at once than in one of them. */
export function addUsage(a: Sums, b: Sums): Sums {
  return {
    downloadBytes: a.downloadBytes + b.downloadBytes,
    uploadBytes: a.uploadBytes + b.uploadBytes,
    downloadDatagrams: a.downloadDatagrams + b.downloadDatagrams,
    uploadDatagrams: a.uploadDatagrams + b.uploadDatagrams,
    joins: a.joins + b.joins,
    peakPlayers: Math.max(a.peakPlayers, b.peakPlayers),
  };
}

/**
 * The steps from `from` to the one of `to`, each with the usage of the points in it. The
 * panel leaves times without usage out; here they are zero.
 */
export function fillSlots(points: readonly Point[], step: Step, from: number, to: number): Slot[] {
  const sums = new Map<number, Sums>();
  for (const { at, ...usage } of points) {
    const start = stepStart(Date.parse(at), step);
    sums.set(start, addUsage(sums.get(start) ?? noUsage, usage));
  }
  const slots: Slot[] = [];
  for (let at = stepStart(from, step); at < to; at = stepAfter(at, step)) slots.push({ at, ...(sums.get(at) ?? noUsage) });
  return slots;
}

/** The usage of all slots together. */
export function total(slots: readonly Sums[]): Sums {
  return slots.reduce<Sums>(addUsage, noUsage);
}

/** Whether anything was carried, or anybody was there. */
export function isUsed(sums: Sums): boolean {
  return sums.downloadBytes + sums.uploadBytes + sums.joins + sums.peakPlayers > 0;
}
