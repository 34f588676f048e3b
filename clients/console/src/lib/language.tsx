import { createContext, useContext, useEffect, useMemo, useState, type ReactNode } from 'react';

export const languages = { en: 'English', de: 'Deutsch' } as const;
export type Language = keyof typeof languages;

/** Texts: sentences, functions that return one, and groups of both. */
export type Texts = { readonly [name: string]: string | ((...args: never[]) => string) | Texts };

/** The same texts in another language. */
type Translated<T> = {
  readonly [K in keyof T]: T[K] extends (...args: infer A) => string ? (...args: A) => string : T[K] extends string ? string : Translated<T[K]>;
};

/** The texts of a part of the console in every language. */
export type Catalogue<T> = Readonly<Record<Language, T>>;

/** Makes a catalogue; a text that a language lacks does not compile. */
export function catalogue<T extends Texts>(texts: { en: T; de: Translated<T> }): Catalogue<Translated<T>> {
  // Every text fits its translation's type, which the compiler cannot see for all T.
  return texts as unknown as Catalogue<Translated<T>>;
}

const storageKey = 'eclitunnel.language';

/** The language that the person chose, or else the first that the browser prefers and the console has. */
function preferred(): Language {
  const wanted = [localStorage.getItem(storageKey), ...navigator.languages].map((tag) => tag?.slice(0, 2));
  return wanted.find((tag): tag is Language => tag !== undefined && tag in languages) ?? 'en';
}

const Context = createContext<{ language: Language; setLanguage(language: Language): void }>({ language: 'en', setLanguage: () => undefined });

export function LanguageProvider({ children }: { children: ReactNode }): ReactNode {
  const [language, setState] = useState(preferred);
  useEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  const value = useMemo(
    () => ({
      language,
      setLanguage(chosen: Language) {
        localStorage.setItem(storageKey, chosen);
        setState(chosen);
      },
    }),
    [language],
  );
  return <Context value={value}>{children}</Context>;
}

export function useLanguage(): { language: Language; setLanguage(language: Language): void } {
  return useContext(Context);
}

/** Returns the texts of a catalogue in the person's language. */
export function useText<T>(texts: Catalogue<T>): T {
  return texts[useLanguage().language];
}
