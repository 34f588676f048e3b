import { describe, expect, it } from 'vitest';
import { namesOf } from '../src/account/agent-names.js';
import { reasonIn, reasonsTexts } from '../src/account/reasons.js';

describe('reasonIn', () => {
  it('says in German why a message did not arrive', () => {
    expect(reasonIn(reasonsTexts.de, 'the connection was refused')).toBe('die Verbindung wurde abgelehnt');
    expect(reasonIn(reasonsTexts.de, 'the receiver answered 503')).toBe('der Empfänger hat mit 503 geantwortet');
    expect(reasonIn(reasonsTexts.de, 'the receiver answered 302; redirects are not followed')).toBe('der Empfänger hat mit 302 geantwortet; Weiterleitungen folgt das Panel nicht');
    expect(reasonIn(reasonsTexts.de, 'all attempts of five days failed; the last: the host does not exist')).toBe('fünf Tage lang sind alle Versuche fehlgeschlagen; der letzte: den Host gibt es nicht');
  });

  it('tells a receiver that wants no more from one that answered 410', () => {
    expect(reasonIn(reasonsTexts.de, 'the receiver answered 410: it wants no more messages')).toBe('der Empfänger hat mit 410 geantwortet: Er will keine Nachrichten mehr');
    expect(reasonIn(reasonsTexts.de, 'the receiver answered 410')).toBe('der Empfänger hat mit 410 geantwortet');
  });

  it('leaves in English, and what it does not know, as the panel says it', () => {
    for (const reason of ['the receiver answered 302; redirects are not followed', 'all attempts of five days failed; the last: the receiver answered 500']) {
      expect(reasonIn(reasonsTexts.en, reason)).toBe(reason);
    }
    expect(reasonIn(reasonsTexts.de, 'the sea was rough')).toBe('the sea was rough');
  });
});

describe('namesOf', () => {
  it('names browsers that say they are others too', () => {
    expect(namesOf('Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0')).toEqual({ browser: 'Edge', system: 'Windows' });
    expect(namesOf('Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1')).toEqual({ browser: 'Safari', system: 'iOS' });
    expect(namesOf('Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36')).toEqual({ browser: 'Chrome', system: 'Android' });
    expect(namesOf('curl/8.14.1')).toEqual({ browser: 'curl', system: undefined });
  });

  it('does not guess', () => {
    expect(namesOf('')).toEqual({ browser: undefined, system: undefined });
    expect(namesOf('backup/1.0')).toEqual({ browser: undefined, system: undefined });
  });
});
