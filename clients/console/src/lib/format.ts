import { useMemo } from 'react';
import { useLanguage, type Language } from './language.js';

const units: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
];

function formats(language: Language) {
  const number = new Intl.NumberFormat(language);
  const short = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
  const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto' });
  const dateTime = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
  const date = new Intl.DateTimeFormat(language, { dateStyle: 'medium' });
  const time = new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit' });

  const scaled = (value: number, base: number, names: readonly string[]): string => {
    let step = 0;
    for (; value >= base && step < names.length - 1; step++) value /= base;
    return `${step === 0 ? number.format(value) : short.format(value)}\u00a0${names[step]}`;
  };
  return {
    number: (value: number) => number.format(value),
    /** An amount of bytes, in powers of 1,000. */
    bytes: (value: number) => scaled(value, 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']),
    /** A rate in bits per second. */
    bits: (value: number) => scaled(value, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s']),
    milliseconds: (value: number) => `${short.format(value)}\u00a0ms`,
    dateTime: (at: string | number | Date) => dateTime.format(new Date(at)),
    date: (at: string | number | Date) => date.format(new Date(at)),
    time: (at: string | number | Date) => time.format(new Date(at)),
    /** How long ago a time was, or how far off it is; within a minute it is "now". */
    ago(at: string | number | Date, now: number): string {
      const seconds = (new Date(at).getTime() - now) / 1000;
      const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 0];
      return relative.format(size === 0 ? 0 : Math.trunc(seconds / size), unit);
    },
    /** A span of time in its two largest units, such as "3 h 20 min". */
    span(seconds: number): string {
      const parts: string[] = [];
      for (const [unit, size] of [['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1]] as const) {
        const count = Math.floor(seconds / size);
        seconds -= count * size;
        if (count > 0) parts.push(new Intl.NumberFormat(language, { style: 'unit', unit, unitDisplay: 'short' }).format(count));
        if (parts.length === 2) break;
      }
      return parts.join(' ') || new Intl.NumberFormat(language, { style: 'unit', unit: 'second', unitDisplay: 'short' }).format(0);
    },
  };
}

/** Returns functions that write numbers, amounts and times in the person's language. */
export function useFormat(): ReturnType<typeof formats> {
  const { language } = useLanguage();
  return useMemo(() => formats(language), [language]);
}
