import { catalogue } from '../lib/language.js';

/** Why messages of webhooks do not arrive, in the words of the panel. */
export const reasonsTexts = catalogue({
  en: {
    answered: (status: string) => `the receiver answered ${status}`,
    redirected: (status: string) => `the receiver answered ${status}; redirects are not followed`,
    fiveDays: (last: string) => `all attempts of five days failed; the last: ${last}`,
    plain: {
      unmade: 'the message could not be made',
      target: "the address is private, or the panel's own",
      noHost: 'the host does not exist',
      noLookup: 'the host could not be looked up',
      certificate: 'the certificate is not valid for the host',
      timeout: 'the receiver did not answer in time',
      refused: 'the connection was refused',
      stopped: 'the panel stopped',
      connection: 'the connection failed',
      gone: 'the receiver answered 410: it wants no more messages',
      crowded: 'too many messages waited',
      off: 'the webhook was disabled',
      sealed: 'its URL or secret is encrypted with a key that the panel does not have',
    },
  },
  de: {
    answered: (status) => `der Empfänger hat mit ${status} geantwortet`,
    redirected: (status) => `der Empfänger hat mit ${status} geantwortet; Weiterleitungen folgt das Panel nicht`,
    fiveDays: (last) => `fünf Tage lang sind alle Versuche fehlgeschlagen; der letzte: ${last}`,
    plain: {
      unmade: 'die Nachricht ließ sich nicht erstellen',
      target: 'die Adresse ist privat oder gehört dem Panel',
      noHost: 'den Host gibt es nicht',
      noLookup: 'der Host ließ sich nicht nachschlagen',
      certificate: 'das Zertifikat gilt nicht für den Host',
      timeout: 'der Empfänger hat nicht rechtzeitig geantwortet',
      refused: 'die Verbindung wurde abgelehnt',
      stopped: 'das Panel wurde beendet',
      connection: 'die Verbindung ist fehlgeschlagen',
      gone: 'der Empfänger hat mit 410 geantwortet: Er will keine Nachrichten mehr',
      crowded: 'zu viele Nachrichten haben gewartet',
      off: 'der Webhook wurde abgeschaltet',
      sealed: 'Adresse oder Geheimnis sind mit einem Schlüssel verschlüsselt, den das Panel nicht hat',
    },
  },
});

type Reasons = (typeof reasonsTexts)['en'];

const names = Object.keys(reasonsTexts.en.plain) as (keyof Reasons['plain'])[];

/** Says a reason of the panel in the language of the texts; one that is not known stays as it is. */
export function reasonIn(t: Reasons, reason: string): string {
  const name = names.find((name) => reasonsTexts.en.plain[name] === reason);
  if (name) return t.plain[name];
  const last = /^all attempts of five days failed; the last: (.+)$/.exec(reason)?.[1];
  if (last) return t.fiveDays(reasonIn(t, last));
  const [, status, redirected] = /^the receiver answered (\d+)(; redirects are not followed)?$/.exec(reason) ?? [];
  if (!status) return reason;
  return redirected ? t.redirected(status) : t.answered(status);
}
