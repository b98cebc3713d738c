import { type ByteLength, byteLength } from '@downfold/units';
import { UsageError } from '../failure.ts';

const SUFFIXES = ['', 'k', 'm', 'g', 't', 'p', 'e'];

/** Blanks before it, and a sign, as C's `strtoull` takes them; in hexadecimal a suffix could be one more digit: there is none. */
const BYTES = /^[ \t-\r]*\+?(?:(\d+)(?:\.(\d*))?([bkmgtpe]?)|(0x[\da-f]+))$/i;

/**
 * Bytes of `10M`, `1.5G`, `4096`, `0x1000`: suffixes b, k, M, G, T, P, E are powers of 1024. A part of a byte is rounded to the nearest, and needs a suffix.
 * @throws UsageError
 */
export function parseBytes(text: string, what: string): ByteLength {
  const [, whole, decimals = '', suffix = '', hexadecimal] = BYTES.exec(text) ?? [];
  const unit = 1024 ** SUFFIXES.indexOf(suffix.toLowerCase().replace('b', ''));
  const part = Number(`0.${decimals}0`);
  const bytes = Number(whole ?? hexadecimal) * unit + Math.floor(part * unit + 0.5);
  if (!Number.isSafeInteger(bytes) || (unit === 1 && part > 0))
    throw new UsageError(
      `Invalid ${what} '${text}': give bytes, or a number with one of the suffixes k, M, G, T, P (at most 8P)`,
    );
  return byteLength(bytes);
}

/** Bytes as qemu-img shows them: three significant digits, `64 MiB`, `1.5 GiB`. */
export function qemuBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let [value, unit] = [bytes, 0];
  // the next unit as soon as this one would need a fourth digit
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1024;
  return `${threeDigits(value)} ${units[unit]}`;
}

/** Two decimals, as C's `%0.2f` rounds: what is exactly halfway goes to the even one. */
export function twoDecimals(value: number): string {
  const halfway = Number.isInteger(value * 8) && !Number.isInteger(value * 4);
  if (!halfway) return value.toFixed(2);
  return ((2 * Math.round((value * 100) / 2)) / 100).toFixed(2);
}

/** Three significant digits of a value below 1000, as C's `%0.3g` rounds: what is exactly halfway goes to the even one. */
function threeDigits(value: number): number {
  const decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
  const scaled = value * 10 ** decimals;
  const below = Math.floor(scaled);
  const up = scaled - below > 0.5 || (scaled - below === 0.5 && below % 2 === 1);
  return (below + (up ? 1 : 0)) / 10 ** decimals;
}
