import type { Schemas } from '@eclitunnel/sdk';

export type NewProtocol = Schemas['AllocationCreate']['protocol'];

/** Ports of a game: `count` neighbouring ones from `localPort` on. */
export interface Ports {
  protocol: NewProtocol;
  localPort: number;
  /** 1 if it is absent. */
  count?: number;
}

/** Ports that a game has beside those that players enter. */
export interface FurtherPorts extends Ports {
  /** What they are for: the name of a text in `presetTexts.uses`. */
  use: 'query' | 'reliable';
  /** Whether players cannot join without them. */
  needed: boolean;
}

export interface Preset {
  /** The name of its texts in `presetTexts`. */
  id: string;
  /** The name of the game, which is the same in every language; undefined for `other`. */
  title?: string;
  ports: Ports;
  further?: readonly FurtherPorts[];
  /**
   * Whether the public port has to be the same as the local one: the game tells its players
   * the port that it listens on, and they go to that number.
   */
  samePort?: boolean;
}

/** What games and other programs listen on unless somebody changes it, by the documentation of each. */
export const presets = [
  { id: 'minecraft', title: 'Minecraft Java', ports: { protocol: 'tcp', localPort: 25565 } },
  // Since version 26.60 players join by TCP and UDP of one number, and enter a numeric address.
  { id: 'bedrock', title: 'Minecraft Bedrock', ports: { protocol: 'tcp+udp', localPort: 19132 } },
  // The game, the query of Steam, and the one that crossplay keeps.
  { id: 'valheim', title: 'Valheim', ports: { protocol: 'udp', localPort: 2456, count: 3 } },
  { id: 'terraria', title: 'Terraria', ports: { protocol: 'tcp', localPort: 7777 } },
  { id: 'palworld', title: 'Palworld', ports: { protocol: 'udp', localPort: 8211 } },
  { id: 'factorio', title: 'Factorio', ports: { protocol: 'udp', localPort: 34197 } },
  // The query is one above the higher of game and RCON port, of which the latter is 28016.
  { id: 'rust', title: 'Rust', ports: { protocol: 'udp', localPort: 28015 }, further: [{ protocol: 'udp', localPort: 28017, use: 'query', needed: false }] },
  // The answer to a query has the number of the game's port.
  { id: 'ark', title: 'ARK', ports: { protocol: 'udp', localPort: 7777, count: 2 }, further: [{ protocol: 'udp', localPort: 27015, use: 'query', needed: true }], samePort: true },
  { id: 'cs2', title: 'Counter-Strike 2', ports: { protocol: 'tcp+udp', localPort: 27015 } },
  // Players are told the second port; the game's maker supports no translation of either.
  { id: 'satisfactory', title: 'Satisfactory', ports: { protocol: 'tcp+udp', localPort: 7777 }, further: [{ protocol: 'tcp', localPort: 8888, use: 'reliable', needed: true }], samePort: true },
  // Nothing documents how players learn the second port; equal numbers are right in any case.
  { id: 'zomboid', title: 'Project Zomboid', ports: { protocol: 'udp', localPort: 16261, count: 2 }, samePort: true },
  { id: 'luanti', title: 'Luanti (Minetest)', ports: { protocol: 'udp', localPort: 30000 } },
  { id: 'openttd', title: 'OpenTTD', ports: { protocol: 'tcp+udp', localPort: 3979 } },
  { id: 'mumble', title: 'Mumble', ports: { protocol: 'tcp+udp', localPort: 64738 } },
  { id: 'ssh', title: 'SSH', ports: { protocol: 'tcp', localPort: 22 } },
  { id: 'http', title: 'HTTP', ports: { protocol: 'tcp', localPort: 80 } },
  { id: 'other', ports: { protocol: 'tcp', localPort: 0 } },
] as const satisfies readonly Preset[];

export type PresetId = (typeof presets)[number]['id'];

/** The preset with the ID, or the one for anything else. */
export function presetOf(id: string): Preset & { id: PresetId } {
  return presets.find((preset) => preset.id === id) ?? presets[presets.length - 1]!;
}

/** Ports in words, such as `2456–2458/udp`. */
export function portsText({ protocol, localPort, count = 1 }: Ports): string {
  const protocols = protocol.replace('+', ' + ').toUpperCase();
  return `${count > 1 ? `${localPort}–${localPort + count - 1}` : localPort} ${protocols}`;
}
