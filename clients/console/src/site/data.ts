import { useState } from 'react';
import { client } from '../lib/client.js';

/** Returns the values that there are, for a query whose parameters may be left out but not be undefined. */
export function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined | null | ''> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '')) as never;
}

/** Returns the value if it is one of those; what stands in an address may be anything. */
export function oneOf<T extends string>(value: string | null, values: readonly T[]): T | undefined {
  return values.find((one) => one === value);
}

/** Returns the number in an address, if it is an ID. */
export function idOf(value: string | null): number | undefined {
  return value && /^[1-9]\d{0,15}$/.test(value) ? Number(value) : undefined;
}

/** What a form's own check says of a field, before the panel is asked for anything. */
export class Wrong extends Error {
  constructor(
    readonly field: string,
    message: string,
  ) {
    super(message);
  }
}

type Submit = (data: FormData, form: HTMLFormElement) => Promise<unknown>;

/** Returns what the last check has found wrong by field, and a function that makes a form's `onSubmit` say so. */
export function useChecked(): [wrong: Readonly<Record<string, string>>, checked: (submit: Submit) => Submit] {
  const [wrong, setWrong] = useState<Record<string, string>>({});
  const checked = (submit: Submit): Submit =>
    async (data, form) => {
      setWrong({});
      try {
        await submit(data, form);
      } catch (error) {
        if (!(error instanceof Wrong)) throw error;
        setWrong({ [error.field]: error.message });
      }
    };
  return [wrong, checked];
}

/** Finds the user with this email, whatever its case. Throws {@link Wrong} of the field if there is none. */
export async function userByEmail(field: string, email: string, message: (email: string) => string): Promise<number> {
  const users = await client.users.list({ search: email, limit: 100 });
  const found = users.find((user) => user.email.toLowerCase() === email.toLowerCase());
  if (!found) throw new Wrong(field, message(email));
  return found.id;
}

/** Finds the organisation with this name, whatever its case. Throws {@link Wrong} of the field if there is none. */
export async function organisationByName(field: string, name: string, message: (name: string) => string): Promise<number> {
  const organisations = await client.organisations.list({ search: name, limit: 100 });
  const found = organisations.find((organisation) => organisation.name.toLowerCase() === name.toLowerCase());
  if (!found) throw new Wrong(field, message(name));
  return found.id;
}
