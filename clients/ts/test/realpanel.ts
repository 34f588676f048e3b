import { inject } from 'vitest';
import type { Panel } from './panel.js';

/** The panel of the built binary. */
export function realPanel(): Panel {
  const panel = inject('panel');
  if (!panel) throw new Error('there is no built eclitunneld: run make build, or name its directory in ECLITUNNEL_BIN');
  return panel;
}
