import type { Device } from '@eclitunnel/sdk';
import type { Tone } from '../ui/index.js';

export type Life = 'online' | 'offline' | 'never' | 'waiting' | 'expired';

/** How a device lives at a time in milliseconds. */
export function lifeOf({ approved, expiresAt, online, lastSeenAt }: Pick<Device, 'approved' | 'expiresAt' | 'online' | 'lastSeenAt'>, now: number): Life {
  if (!approved) return expiresAt && Date.parse(expiresAt) <= now ? 'expired' : 'waiting';
  if (online) return 'online';
  return lastSeenAt ? 'offline' : 'never';
}

export const tones: Readonly<Record<Life, Tone>> = { online: 'good', offline: 'bad', never: '', waiting: 'warn', expired: '' };

const systems: Readonly<Record<string, string>> = { linux: 'Linux', windows: 'Windows', darwin: 'macOS', freebsd: 'FreeBSD' };

/** A platform as people write it: "Linux, amd64" for linux/amd64. */
export function platformName(platform: string): string {
  const [system = '', processor] = platform.split('/');
  return [systems[system] ?? system, processor].filter(Boolean).join(', ');
}
