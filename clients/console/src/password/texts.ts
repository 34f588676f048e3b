import { catalogue } from '../lib/language.js';

export const texts = catalogue({
  en: {
    title: 'Set your password',
    password: 'New password',
    rule: 'At least 12 characters. Several words are easy to remember.',
    again: 'New password, again',
    differ: 'The two passwords differ.',
    submit: 'Set the password',
    used: 'This link was used already, or has expired. Ask an admin of the panel for a new one.',
    wholeLink: 'This page needs the whole link that you were given, with what follows the #.',
    done: 'Your password is set',
    doneText: 'Sign in with it from now on. Wherever you were signed in, you are not any more.',
    signIn: 'Sign in',
  },
  de: {
    title: 'Setze dein Passwort',
    password: 'Neues Passwort',
    rule: 'Mindestens 12 Zeichen. Mehrere Wörter merkt man sich leicht.',
    again: 'Neues Passwort, noch einmal',
    differ: 'Die beiden Passwörter sind verschieden.',
    submit: 'Passwort setzen',
    used: 'Dieser Link wurde schon benutzt oder ist abgelaufen. Bitte Admins des Panels um einen neuen.',
    wholeLink: 'Diese Seite braucht den ganzen Link, den du bekommen hast, auch das, was hinter dem # steht.',
    done: 'Dein Passwort ist gesetzt',
    doneText: 'Melde dich von jetzt an damit an. Wo du angemeldet warst, bist du es nicht mehr.',
    signIn: 'Anmelden',
  },
});
