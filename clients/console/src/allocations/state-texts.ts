import { catalogue } from '../lib/language.js';

export const stateTexts = catalogue({
  en: {
    open: { word: 'Open', text: 'Players can join.' },
    openUnknown: { word: 'Open', text: 'Players can join. Whether the game answers shows when the first one does.' },
    noGame: { word: 'No game', text: (target: string) => `Open, but the game does not answer: start it on ${target}.` },
    paused: { word: 'Paused', text: 'Players cannot join. Resume it, and it opens again at the same address.' },
    failed: { word: 'Failed', text: 'The port does not work. It is tried again by itself; if that goes on, choose another port or another tunnel server.' },
    deviceOffline: { word: 'Offline', text: 'The device is not connected: start the agent on it, and check its network.' },
    serverOffline: { word: 'Offline', text: 'The tunnel server is not connected. Its operator has to bring it back, or the port moves to another one.' },
    draining: { word: 'Closing', text: 'The tunnel server is being emptied: players stay, and nobody else can join. Move the port to another tunnel server.' },
    serverPending: { word: 'Opening', text: 'The tunnel server opens the port. This takes a moment.' },
    devicePending: { word: 'Opening', text: 'The device connects to the tunnel server. This takes a moment.' },
  },
  de: {
    open: { word: 'Offen', text: 'Spieler können beitreten.' },
    openUnknown: { word: 'Offen', text: 'Spieler können beitreten. Ob das Spiel antwortet, zeigt sich beim ersten.' },
    noGame: { word: 'Kein Spiel', text: (target) => `Offen, aber das Spiel antwortet nicht: Starte es auf ${target}.` },
    paused: { word: 'Pausiert', text: 'Spieler können nicht beitreten. Setze ihn fort, dann öffnet er sich unter derselben Adresse wieder.' },
    failed: { word: 'Gestört', text: 'Der Port funktioniert nicht. Er wird von selbst wieder versucht; wenn das so bleibt, wähle einen anderen Port oder einen anderen Tunnelserver.' },
    deviceOffline: { word: 'Offline', text: 'Das Gerät ist nicht verbunden: Starte den Agenten darauf und prüfe sein Netz.' },
    serverOffline: { word: 'Offline', text: 'Der Tunnelserver ist nicht verbunden. Sein Betreiber muss ihn zurückholen, oder der Port zieht auf einen anderen um.' },
    draining: { word: 'Schließt', text: 'Der Tunnelserver wird geleert: Spieler bleiben, aber niemand sonst kann beitreten. Verlege den Port auf einen anderen Tunnelserver.' },
    serverPending: { word: 'Öffnet', text: 'Der Tunnelserver öffnet den Port. Das dauert einen Moment.' },
    devicePending: { word: 'Öffnet', text: 'Das Gerät verbindet sich mit dem Tunnelserver. Das dauert einen Moment.' },
  },
});
