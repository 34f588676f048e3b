import { catalogue } from '../lib/language.js';

/** What an error of these pages means, and what to do. */
export const errorTexts = catalogue({
  en: {
    create: {
      invalid_request: 'Something that you have entered does not fit. The fields say what.',
      port_taken: 'Somebody has this public port already. Choose another one, or leave the field empty to get a free one.',
      no_ports_available: 'No tunnel server has a free port, or as many neighbouring ones as you need. Ask the operator of the panel for a larger range, or delete ports that you do not use.',
      no_tunnel_server: 'No tunnel server takes new ports at the moment: none is connected, or all are closed for new ones. Ask the operator of the panel.',
      conflict: 'This cannot be opened as it is: the device is not approved yet, the tunnel server takes no new ports, or the local address is itself a public port of this panel.',
      forbidden: 'You may not open this. Public ports below 1024 are for admins of the panel, and those of an organisation’s devices for its admins.',
      not_found: 'The device or the tunnel server does not exist any more, or the tunnel server does not serve this device. Load the page again.',
    },
    change: {
      invalid_request: 'Something that you have entered does not fit. The fields say what.',
      precondition_failed: 'Nothing is saved yet.',
      port_taken: 'Somebody has this public port already. Choose another one.',
      conflict: 'This cannot be changed so: the local address leads to a public port of this panel, or the port belongs to a run.',
      forbidden: 'You may not change this. Public ports below 1024 are for admins of the panel.',
    },
    move: {
      invalid_request: 'Something that you have entered does not fit. The fields say what.',
      port_taken: 'The port is in use on this tunnel server.',
      no_ports_available: 'This tunnel server has no free port. Choose another one.',
      conflict: 'This tunnel server takes no ports at the moment: it is not connected, or it is closed for new ones. Choose another one.',
      not_found: 'This tunnel server does not serve the device, or it does not exist any more.',
    },
    rules: {
      invalid_request: 'Something that you have entered does not fit. The fields say what.',
      precondition_failed: 'Nothing is saved yet.',
    },
    quotaPorts: (limit: number, used: number) => `The owner of the device may have ${limit} ports and has ${used}: too many for what you want to open. Delete some that are not used, or ask an admin of the panel for more.`,
    quotaOutside: 'This public port is outside of the range of the tunnel server, and an admin of the panel has to permit such ports. Leave the field empty to get one within.',
  },
  de: {
    create: {
      invalid_request: 'Etwas von dem, was du eingegeben hast, passt nicht. Was, steht bei den Feldern.',
      port_taken: 'Diesen öffentlichen Port hat schon jemand. Wähle einen anderen, oder lass das Feld leer, um einen freien zu bekommen.',
      no_ports_available: 'Kein Tunnelserver hat einen freien Port oder so viele benachbarte, wie du brauchst. Bitte den Betreiber des Panels um einen größeren Bereich, oder lösche Ports, die du nicht brauchst.',
      no_tunnel_server: 'Kein Tunnelserver nimmt gerade neue Ports an: Keiner ist verbunden, oder alle sind für neue geschlossen. Frage den Betreiber des Panels.',
      conflict: 'So lässt sich das nicht öffnen: Das Gerät ist noch nicht zugelassen, der Tunnelserver nimmt keine neuen Ports an, oder die lokale Adresse ist selbst ein öffentlicher Port dieses Panels.',
      forbidden: 'Das darfst du nicht öffnen. Öffentliche Ports unter 1024 sind für Admins des Panels, und die für Geräte einer Organisation für deren Admins.',
      not_found: 'Das Gerät oder den Tunnelserver gibt es nicht mehr, oder der Tunnelserver bedient dieses Gerät nicht. Lade die Seite neu.',
    },
    change: {
      invalid_request: 'Etwas von dem, was du eingegeben hast, passt nicht. Was, steht bei den Feldern.',
      precondition_failed: 'Noch ist nichts gespeichert.',
      port_taken: 'Diesen öffentlichen Port hat schon jemand. Wähle einen anderen.',
      conflict: 'So lässt sich das nicht ändern: Die lokale Adresse führt zu einem öffentlichen Port dieses Panels, oder der Port gehört zu einer Reihe.',
      forbidden: 'Das darfst du nicht ändern. Öffentliche Ports unter 1024 sind für Admins des Panels.',
    },
    move: {
      invalid_request: 'Etwas von dem, was du eingegeben hast, passt nicht. Was, steht bei den Feldern.',
      port_taken: 'Der Port ist auf diesem Tunnelserver belegt.',
      no_ports_available: 'Dieser Tunnelserver hat keinen freien Port. Wähle einen anderen.',
      conflict: 'Dieser Tunnelserver nimmt gerade keine Ports an: Er ist nicht verbunden oder für neue geschlossen. Wähle einen anderen.',
      not_found: 'Dieser Tunnelserver bedient das Gerät nicht, oder es gibt ihn nicht mehr.',
    },
    rules: {
      invalid_request: 'Etwas von dem, was du eingegeben hast, passt nicht. Was, steht bei den Feldern.',
      precondition_failed: 'Noch ist nichts gespeichert.',
    },
    quotaPorts: (limit, used) => `Der Besitzer des Geräts darf ${limit} Ports haben und hat ${used}: zu viele für das, was du öffnen willst. Lösche welche, die nicht gebraucht werden, oder bitte einen Admin des Panels um mehr.`,
    quotaOutside: 'Dieser öffentliche Port liegt außerhalb des Bereichs des Tunnelservers, und solche Ports muss ein Admin des Panels erlauben. Lass das Feld leer, um einen von innerhalb zu bekommen.',
  },
});
