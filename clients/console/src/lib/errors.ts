import { isCode, NetworkError, ResponseError, TimeoutError, TunnelError } from '@eclitunnel/sdk';
import { catalogue, useText } from './language.js';

const texts = catalogue({
  en: {
    unreachable: 'The panel cannot be reached. Check your network; this page tries again by itself.',
    timeout: 'The panel takes too long to answer. Try again.',
    unexpected: (status: number) => `The panel sent an answer that this page does not understand (status ${status}).`,
    unknown: 'Something went wrong in this page. Load it again.',
    tooMany: (seconds: number) => `Too many attempts. Try again in ${seconds} s.`,
    later: 'Too many attempts. Try again in a while.',
    quota: (limit: number) => `The limit is reached: not more than ${limit}.`,
    codes: {
      unauthorized: 'You are not signed in any more.',
      forbidden: 'Your account may not do this.',
      wrong_password: 'The current password is wrong.',
      not_found: 'It does not exist any more, or it is not yours to see.',
      port_taken: 'Somebody has this port already. Choose another one.',
      conflict: 'This does not fit what there is now. Look at it again.',
      already_approved: 'This device is approved already.',
      enrollment_denied: 'This device was refused.',
      enrollment_expired: 'This code has expired. Start the enrollment on the device again.',
      login_denied: 'This terminal was refused.',
      login_expired: 'This code has expired. Run the command in the terminal again.',
      precondition_failed: 'Somebody else has changed this meanwhile. Look at what it is now, and try again.',
      internal_error: 'The panel failed. Its operator finds the cause in its log under the request ID.',
      unavailable: 'The panel is not ready at the moment. Try again in a while.',
      feature_disabled: 'Tunnels are switched off on this panel.',
      no_ports_available: 'The tunnel servers have no free port.',
      no_tunnel_server: 'There is no tunnel server that takes new ports at the moment.',
      local_accounts_disabled: 'This panel has no passwords of its own.',
      kyc_required: 'EcliPanel asks you to verify your identity first.',
      email_taken: 'Another account has this email address.',
      payload_too_large: 'This is too large.',
    },
  },
  de: {
    unreachable: 'Das Panel ist nicht erreichbar. Prüfe dein Netz; diese Seite versucht es selbst wieder.',
    timeout: 'Das Panel braucht zu lange für eine Antwort. Versuche es noch einmal.',
    unexpected: (status) => `Das Panel hat eine Antwort geschickt, die diese Seite nicht versteht (Status ${status}).`,
    unknown: 'In dieser Seite ist etwas schiefgegangen. Lade sie neu.',
    tooMany: (seconds) => `Zu viele Versuche. Versuche es in ${seconds} s wieder.`,
    later: 'Zu viele Versuche. Versuche es später wieder.',
    quota: (limit) => `Die Grenze ist erreicht: nicht mehr als ${limit}.`,
    codes: {
      unauthorized: 'Du bist nicht mehr angemeldet.',
      forbidden: 'Dein Konto darf das nicht.',
      wrong_password: 'Das jetzige Passwort ist falsch.',
      not_found: 'Das gibt es nicht mehr, oder du darfst es nicht sehen.',
      port_taken: 'Diesen Port hat schon jemand. Wähle einen anderen.',
      conflict: 'Das passt nicht zu dem, was es jetzt gibt. Sieh es dir noch einmal an.',
      already_approved: 'Dieses Gerät ist schon zugelassen.',
      enrollment_denied: 'Dieses Gerät wurde abgelehnt.',
      enrollment_expired: 'Dieser Code ist abgelaufen. Starte die Anmeldung auf dem Gerät noch einmal.',
      login_denied: 'Dieses Terminal wurde abgelehnt.',
      login_expired: 'Dieser Code ist abgelaufen. Starte den Befehl im Terminal noch einmal.',
      precondition_failed: 'Jemand anders hat das inzwischen geändert. Sieh dir an, wie es jetzt ist, und versuche es noch einmal.',
      internal_error: 'Das Panel hat einen Fehler. Sein Betreiber findet die Ursache im Log unter der Anfragenummer.',
      unavailable: 'Das Panel ist gerade nicht bereit. Versuche es später wieder.',
      feature_disabled: 'Tunnel sind auf diesem Panel abgeschaltet.',
      no_ports_available: 'Die Tunnelserver haben keinen freien Port.',
      no_tunnel_server: 'Kein Tunnelserver nimmt gerade neue Ports an.',
      local_accounts_disabled: 'Dieses Panel hat keine eigenen Passwörter.',
      kyc_required: 'EcliPanel verlangt zuerst, dass du deine Identität bestätigst.',
      email_taken: 'Ein anderes Konto hat diese E-Mail-Adresse.',
      payload_too_large: 'Das ist zu groß.',
    },
  },
});

/** Sentences of a page for error codes, in place of the general ones. */
export type OwnMessages = Partial<Record<string, string>>;

export interface Explanation {
  message: string;
  /** The ID of the request in the panel's log; undefined if there was no response of the panel. */
  requestId: string | undefined;
  /** The fields that are invalid, with what is wrong, as the panel says it. */
  fields: readonly { field: string; message: string }[];
}

/** Returns a function that explains errors in the person's language. */
export function useExplain(): (error: unknown, own?: OwnMessages) => Explanation {
  const t = useText(texts);
  return (error, own = {}) => {
    const of = (message: string, requestId?: string): Explanation => ({ message, requestId, fields: [] });
    if (error instanceof NetworkError) return of(t.unreachable);
    if (error instanceof TimeoutError) return of(t.timeout);
    if (error instanceof ResponseError) return of(t.unexpected(error.status));
    if (!(error instanceof TunnelError)) {
      console.error(error);
      return of(t.unknown);
    }
    const sentence = (): string => {
      if (isCode(error, 'quota_exceeded')) return t.quota(error.quota.limit);
      if (error.code === 'rate_limited' || error.code === 'slow_down') return error.retryAfter ? t.tooMany(error.retryAfter) : t.later;
      return (t.codes as Record<string, string>)[error.code] ?? error.message;
    };
    return { message: own[error.code] ?? sentence(), requestId: error.requestId, fields: error.details };
  };
}
