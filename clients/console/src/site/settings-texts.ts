import { catalogue } from '../lib/language.js';

export const texts = catalogue({
  en: {
    title: 'Settings', about: 'They apply to the whole panel, at once and at every replica.', warnings: 'What should be changed where the panel was started', warningTexts: {} as Readonly<Record<string, string>>, save: 'Save', saved: 'The settings are saved.', discard: 'Discard',
    changes: (count: number) => `Not saved: ${count}`, noChanges: 'Everything is saved.', kept: 'Changes that you had not saved are still here.',
    conflict: 'Somebody else has saved settings meanwhile. Yours are still in the form; look at what is different, and save again.', others: 'Changed by somebody else meanwhile:', was: (before: string, now: string) => `${before} → ${now}`, none: 'none', yes: 'on', no: 'off',
    off: 'Switch tunnels off?', offText: 'All devices are cut off and all public ports close within seconds. Players lose their games. Ports and devices are kept, and come back when you switch tunnels on again.', offDo: 'Switch tunnels off',
    features: 'Features', enrollment: 'Enrollment of devices', organisations: 'Organisations', quota: 'Quota', usage: 'Traffic statistics', rules: 'Rules of ports',
    names: {
      'features.tunnels': 'Tunnels', 'enrollment.anonymous': 'Devices ask without signing in', 'enrollment.ownersApprove': 'Owners approve their own devices', 'organisations.creators': 'Who may create organisations',
      'quota.devices': 'Devices', 'quota.allocations': 'Ports', 'quota.portsOutsideRange': 'Ports outside the server’s range', 'usage.minuteDays': 'By the minute (days)', 'usage.hourDays': 'By the hour (days)', 'usage.dayDays': 'By the day (days)',
    } as Readonly<Record<string, string>>,
    hints: {
      'features.tunnels': 'Off: no device connects and no public port is open. Accounts and these pages keep working.',
      'enrollment.anonymous': 'On: who runs “eclitunnel enroll” needs no account; somebody with one approves the code. Off: the command asks for a sign-in.',
      'enrollment.ownersApprove': 'On: users approve devices for themselves, and owners and admins of an organisation for it. Off: only admins of the panel do.',
      'organisations.creators': 'Who creates an organisation owns it.',
      'quota.devices': 'Empty: as many as one likes.', 'quota.allocations': 'A port in TCP and UDP counts twice. Empty: as many as one likes.', 'quota.portsOutsideRange': 'Public ports that somebody chooses outside the range, such as 25565. 0: none.',
      'usage.minuteDays': '1 to 31. The default is 2.', 'usage.hourDays': '2 to 731. The default is 90.', 'usage.dayDays': '2 to 3,653. The default is 731.',
    } as Readonly<Record<string, string>>,
    creators: { admins: 'Only admins of the panel', everyone: 'Everybody with an account' },
    quotaAbout: 'How much a user or an organisation may have that has no limit of its own. Admins have none. What is used already stays.',
    usageAbout: 'For how long charts reach back, in each detail. What is older is deleted within an hour, and does not come back.',
    rulesAbout: 'How much one port takes. The default counts where neither an organisation nor a port says otherwise; empty means what is built in. The ceiling is never exceeded, whatever others set; empty means there is none.',
    builtIn: (value: string) => `Built in: ${value}`, unlimited: 'no limit', default: 'Default', ceiling: 'Ceiling', mbit: 'Mbit/s', of: (part: string, rule: string) => `${rule}: ${part}`,
    ruleNames: {
      maxPlayers: 'Players at once', maxPlayersPerSource: 'TCP connections from one address', maxFlowsPerSource: 'UDP players from one address', connectionsPerSecond: 'New TCP connections a second', connectionsPerSecondPerSource: 'New TCP connections a second from one address',
      datagramsPerSecondPerSource: 'UDP packets a second from one address', downloadBitsPerSecond: 'Download of all players', uploadBitsPerSecond: 'Upload of all players', playerDownloadBitsPerSecond: 'Download of each player', playerUploadBitsPerSecond: 'Upload of each player',
    },
    ruleHints: {
      maxPlayers: 'TCP connections and UDP players together.', maxPlayersPerSource: 'Several players may share an address, as in a household.', maxFlowsPerSource: 'Several players may share an address, as in a household.', connectionsPerSecond: 'Further ones wait for their turn.',
      connectionsPerSecondPerSource: 'Further ones are refused. Ten seconds’ worth may come at once.', datagramsPerSecondPerSource: 'Further ones are dropped.', downloadBitsPerSecond: 'From the game to players. TCP slows down above it, UDP is dropped.',
      uploadBitsPerSecond: 'From players to the game. TCP slows down above it, UDP is dropped.', playerDownloadBitsPerSecond: 'From the game to one player.', playerUploadBitsPerSecond: 'From one player to the game.',
    },
  },
  de: {
    title: 'Einstellungen', about: 'Sie gelten für das ganze Panel, sofort und auf jeder Replik.', warnings: 'Was zu ändern ist, wo das Panel gestartet wurde',
    // The panel's own sentence, with names and addresses, stands below.
    warningTexts: {
      public_url_unset: 'Das Panel kennt seine öffentliche Adresse nicht: --public-url ist nicht gesetzt. Links und Agenten werden vielleicht an eine Adresse geschickt, die auf anderen Maschinen nichts bedeutet.',
      shared_host: 'Spieler treten am Host des Panels selbst bei. Browser schicken Cookies an jeden Port eines Hosts: Wer dort einen öffentlichen Port hat, könnte die Sitzung eines Admins bekommen. Gib den Spielern einen anderen Hostnamen.',
      certificate: 'Ein Zertifikat ließ sich nicht holen, erneuern oder lesen.',
    } as Readonly<Record<string, string>>,
    save: 'Speichern', saved: 'Die Einstellungen sind gespeichert.', discard: 'Verwerfen',
    changes: (count) => `Ungespeichert: ${count}`, noChanges: 'Alles ist gespeichert.', kept: 'Änderungen, die du nicht gespeichert hattest, sind noch da.',
    conflict: 'Jemand anders hat inzwischen Einstellungen gespeichert. Deine stehen noch im Formular; sieh dir an, was anders ist, und speichere noch einmal.', others: 'Inzwischen von jemand anderem geändert:', was: (before, now) => `${before} → ${now}`, none: 'nichts', yes: 'an', no: 'aus',
    off: 'Tunnel abschalten?', offText: 'Alle Geräte werden getrennt, und alle öffentlichen Ports schließen binnen Sekunden. Spieler fliegen aus ihren Spielen. Ports und Geräte bleiben erhalten und sind wieder da, wenn du Tunnel einschaltest.', offDo: 'Tunnel abschalten',
    features: 'Funktionen', enrollment: 'Anmeldung von Geräten', organisations: 'Organisationen', quota: 'Kontingent', usage: 'Verkehrsstatistik', rules: 'Regeln für Ports',
    names: {
      'features.tunnels': 'Tunnel', 'enrollment.anonymous': 'Geräte melden sich ohne Konto an', 'enrollment.ownersApprove': 'Besitzer lassen eigene Geräte zu', 'organisations.creators': 'Wer Organisationen anlegen darf',
      'quota.devices': 'Geräte', 'quota.allocations': 'Ports', 'quota.portsOutsideRange': 'Ports außerhalb des Serverbereichs', 'usage.minuteDays': 'Je Minute (Tage)', 'usage.hourDays': 'Je Stunde (Tage)', 'usage.dayDays': 'Je Tag (Tage)',
    },
    hints: {
      'features.tunnels': 'Aus: Kein Gerät verbindet sich, und kein öffentlicher Port ist offen. Konten und diese Seiten gehen weiter.',
      'enrollment.anonymous': 'An: Wer „eclitunnel enroll“ ausführt, braucht kein Konto; jemand mit Konto lässt den Code zu. Aus: Der Befehl fragt nach einer Anmeldung.',
      'enrollment.ownersApprove': 'An: Nutzer lassen Geräte für sich zu, und Besitzer und Admins einer Organisation für diese. Aus: Nur Admins des Panels tun es.',
      'organisations.creators': 'Wer eine Organisation anlegt, dem gehört sie.',
      'quota.devices': 'Leer: so viele man will.', 'quota.allocations': 'Ein Port mit TCP und UDP zählt doppelt. Leer: so viele man will.', 'quota.portsOutsideRange': 'Öffentliche Ports, die jemand außerhalb des Bereichs wählt, etwa 25565. 0: keine.',
      'usage.minuteDays': '1 bis 31. Die Vorgabe ist 2.', 'usage.hourDays': '2 bis 731. Die Vorgabe ist 90.', 'usage.dayDays': '2 bis 3.653. Die Vorgabe ist 731.',
    },
    creators: { admins: 'Nur Admins des Panels', everyone: 'Alle mit einem Konto' },
    quotaAbout: 'Wie viel ein Nutzer oder eine Organisation ohne eigene Grenze haben darf. Admins haben keine. Was schon belegt ist, bleibt.',
    usageAbout: 'Wie weit Diagramme zurückreichen, je Genauigkeit. Was älter ist, wird binnen einer Stunde gelöscht und kommt nicht wieder.',
    rulesAbout: 'Wie viel ein Port nimmt. Die Vorgabe gilt, wo weder Organisation noch Port etwas anderes sagen; leer heißt: was eingebaut ist. Die Obergrenze wird nie überschritten, was andere auch einstellen; leer heißt: keine.',
    builtIn: (value) => `Eingebaut: ${value}`, unlimited: 'keine Grenze', default: 'Vorgabe', ceiling: 'Obergrenze', mbit: 'Mbit/s', of: (part, rule) => `${rule}: ${part}`,
    ruleNames: {
      maxPlayers: 'Spieler zugleich', maxPlayersPerSource: 'TCP-Verbindungen von einer Adresse', maxFlowsPerSource: 'UDP-Spieler von einer Adresse', connectionsPerSecond: 'Neue TCP-Verbindungen je Sekunde', connectionsPerSecondPerSource: 'Neue TCP-Verbindungen je Sekunde von einer Adresse',
      datagramsPerSecondPerSource: 'UDP-Pakete je Sekunde von einer Adresse', downloadBitsPerSecond: 'Download aller Spieler', uploadBitsPerSecond: 'Upload aller Spieler', playerDownloadBitsPerSecond: 'Download je Spieler', playerUploadBitsPerSecond: 'Upload je Spieler',
    },
    ruleHints: {
      maxPlayers: 'TCP-Verbindungen und UDP-Spieler zusammen.', maxPlayersPerSource: 'Mehrere Spieler können sich eine Adresse teilen, etwa in einem Haushalt.', maxFlowsPerSource: 'Mehrere Spieler können sich eine Adresse teilen, etwa in einem Haushalt.', connectionsPerSecond: 'Weitere warten, bis sie dran sind.',
      connectionsPerSecondPerSource: 'Weitere werden abgelehnt. Auf einmal kommen darf, was zehn Sekunden entspricht.', datagramsPerSecondPerSource: 'Weitere werden verworfen.', downloadBitsPerSecond: 'Vom Spiel zu den Spielern. Darüber wird TCP langsamer und UDP verworfen.',
      uploadBitsPerSecond: 'Von den Spielern zum Spiel. Darüber wird TCP langsamer und UDP verworfen.', playerDownloadBitsPerSecond: 'Vom Spiel zu einem Spieler.', playerUploadBitsPerSecond: 'Von einem Spieler zum Spiel.',
    },
  },
});
