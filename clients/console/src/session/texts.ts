import { catalogue } from '../lib/language.js';

export const texts = catalogue({
  en: {
    title: 'Sign in',
    email: 'Email',
    password: 'Password',
    submit: 'Sign in',
    with: (name: string) => `Sign in with ${name}`,
    or: 'or',
    eclipanel: 'This panel accepts your session at EcliPanel.',
    eclipanelLink: 'Sign in at EcliPanel',
    eclipanelDone: 'I have signed in at EcliPanel',
    noEcliPanelSession:
      'Your browser sends no valid session of EcliPanel to this page. If you are signed in there, this page is at another address than EcliPanel: ask the operator of this panel how to sign in.',
    wrong: 'Email or password is wrong.',
    ended: 'Your session has ended. Sign in again to go on where you were.',
    noWay: 'Nobody can sign in at the moment: this panel has neither passwords nor an identity provider. Its operator can change that.',
    forgotten: 'Forgotten your password? An admin of the panel can send you a link for a new one.',
  },
  de: {
    title: 'Anmelden',
    email: 'E-Mail',
    password: 'Passwort',
    submit: 'Anmelden',
    with: (name) => `Mit ${name} anmelden`,
    or: 'oder',
    eclipanel: 'Dieses Panel nimmt deine Sitzung bei EcliPanel an.',
    eclipanelLink: 'Bei EcliPanel anmelden',
    eclipanelDone: 'Ich habe mich bei EcliPanel angemeldet',
    noEcliPanelSession:
      'Dein Browser schickt dieser Seite keine gültige Sitzung von EcliPanel. Wenn du dort angemeldet bist, hat diese Seite eine andere Adresse als EcliPanel: Frage den Betreiber dieses Panels, wie du dich anmeldest.',
    wrong: 'E-Mail oder Passwort ist falsch.',
    ended: 'Deine Sitzung ist abgelaufen. Melde dich wieder an, um da weiterzumachen, wo du warst.',
    noWay: 'Zurzeit kann sich niemand anmelden: Dieses Panel hat weder Passwörter noch einen Identitätsanbieter. Sein Betreiber kann das ändern.',
    forgotten: 'Passwort vergessen? Admins des Panels können dir einen Link für ein neues schicken.',
  },
});
