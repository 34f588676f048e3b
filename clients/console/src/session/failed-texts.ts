import { catalogue } from '../lib/language.js';

/** Why a login at an identity provider failed, by the reason in the page's address. */
export const failedTexts = catalogue({
  en: {
    again: 'To the sign-in page',
    request: (id: string) => `The panel's log has more under the request ID ${id}.`,
    reasons: {
      'unknown-provider': { title: 'No such way to sign in', text: 'This panel does not know the identity provider of this link.' },
      stale: { title: 'This sign-in is over', text: 'A sign-in takes at most 10 minutes, works once, and is finished in the browser in which it was begun. If you opened the panel under another address than the one that its operator has set, open it under that one.' },
      denied: { title: 'You were not signed in', text: 'The identity provider says that the sign-in was cancelled, or is not permitted.' },
      unreachable: { title: 'The identity provider does not answer', text: 'The panel cannot reach it. Try again in a few minutes. If it stays like this, tell an admin of the panel.' },
      refused: { title: 'The sign-in did not work', text: 'The panel and the identity provider do not understand each other. Tell an admin of the panel.' },
      'email-taken': { title: 'Your email has another account', text: 'An account of this panel has your email already, and nobody has verified that both are yours. Sign in to that account as before, or ask an admin of the panel.' },
      suspended: { title: 'This account is suspended', text: 'An admin of the panel has suspended your account. Ask them why.' },
      'rate-limited': { title: 'Too many attempts', text: 'Too many sign-ins from your network have failed. Try again in a minute.' },
      unavailable: { title: 'The panel is not available', text: 'The panel cannot reach its database. Try again in a few seconds.' },
      failed: { title: 'The sign-in failed', text: 'The panel failed. Tell an admin of the panel.' },
    },
  },
  de: {
    again: 'Zur Anmeldeseite',
    request: (id) => `Mehr steht im Log des Panels unter der Anfragenummer ${id}.`,
    reasons: {
      'unknown-provider': { title: 'So kann man sich nicht anmelden', text: 'Dieses Panel kennt den Identitätsanbieter aus diesem Link nicht.' },
      stale: { title: 'Diese Anmeldung ist vorbei', text: 'Eine Anmeldung dauert höchstens 10 Minuten, gilt einmal und endet in dem Browser, in dem sie begonnen hat. Wenn du das Panel unter einer anderen Adresse geöffnet hast als der, die sein Betreiber eingestellt hat, öffne es unter dieser.' },
      denied: { title: 'Du wurdest nicht angemeldet', text: 'Der Identitätsanbieter sagt, dass die Anmeldung abgebrochen wurde oder nicht erlaubt ist.' },
      unreachable: { title: 'Der Identitätsanbieter antwortet nicht', text: 'Das Panel erreicht ihn nicht. Versuche es in ein paar Minuten wieder. Wenn es so bleibt, sag einem Admin des Panels Bescheid.' },
      refused: { title: 'Die Anmeldung hat nicht geklappt', text: 'Das Panel und der Identitätsanbieter verstehen sich nicht. Sag einem Admin des Panels Bescheid.' },
      'email-taken': { title: 'Deine E-Mail-Adresse hat ein anderes Konto', text: 'Ein Konto dieses Panels hat deine E-Mail-Adresse schon, und niemand hat bestätigt, dass beide dir gehören. Melde dich bei diesem Konto an wie bisher, oder frage einen Admin des Panels.' },
      suspended: { title: 'Dieses Konto ist gesperrt', text: 'Ein Admin des Panels hat dein Konto gesperrt. Frage nach dem Grund.' },
      'rate-limited': { title: 'Zu viele Versuche', text: 'Aus deinem Netz sind zu viele Anmeldungen fehlgeschlagen. Versuche es in einer Minute wieder.' },
      unavailable: { title: 'Das Panel ist nicht verfügbar', text: 'Das Panel erreicht seine Datenbank nicht. Versuche es in ein paar Sekunden wieder.' },
      failed: { title: 'Die Anmeldung ist fehlgeschlagen', text: 'Das Panel hat einen Fehler. Sag einem Admin des Panels Bescheid.' },
    },
  },
});
