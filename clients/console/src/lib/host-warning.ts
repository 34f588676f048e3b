import { useFormat } from './format.js';
import { catalogue, useText } from './language.js';

/** What keeps players from a public host, as the panel says it. */
const texts = catalogue({
  en: {
    gone: (host: string, since: string) => `The name ${host} has not existed since ${since}, according to the panel's DNS resolver.`,
    onlyIPv6: (host: string) => `Players without IPv6 cannot join at ${host}. Set an IPv4 address, or a name that has one, as the public host.`,
  },
  de: {
    gone: (host, since) => `Den Namen ${host} gibt es seit ${since} nicht mehr, sagt der DNS-Resolver des Panels.`,
    onlyIPv6: (host) => `Spieler ohne IPv6 können unter ${host} nicht beitreten. Trage als öffentlichen Host eine IPv4-Adresse ein oder einen Namen, der eine hat.`,
  },
});

export type HostWarning = { kind: 'gone'; host: string; since: string } | { kind: 'onlyIPv6'; host: string };

/** Takes a warning of the panel apart; undefined if it is one that this version does not know. */
export function hostWarningOf(warning: string): HostWarning | undefined {
  const [, host, since] = /^the public host (\S+) has not existed since (\S+), according to the panel's DNS resolver$/.exec(warning) ?? [];
  if (host && since && !Number.isNaN(Date.parse(since))) return { kind: 'gone', host, since };
  const only = /^players without IPv6 cannot join at (\S+); set an IPv4 address, or a name that has one, as the public host$/.exec(warning)?.[1];
  return only === undefined ? undefined : { kind: 'onlyIPv6', host: only };
}

/** Returns a function that says a warning of the panel about a public host in the person's language. */
export function useHostWarning(): (warning: string) => string {
  const t = useText(texts);
  const format = useFormat();
  return (warning) => {
    const known = hostWarningOf(warning);
    if (!known) return warning;
    return known.kind === 'gone' ? t.gone(known.host, format.dateTime(known.since)) : t.onlyIPv6(known.host);
  };
}
