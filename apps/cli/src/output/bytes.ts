import { type ByteLength, byteLength } from '@downfold/units';
import { UsageError } from '../failure.ts';

const SUFFIXES = ['', 'k', 'm', 'g', 't', 'p', 'e'];

/** Bytes of `10M`, `1.5G`, `4096`, `0x1000`: suffixes b, k, M, G, T, P, E are powers of 1024. @throws UsageError */
export function parseBytes(text: string, what: string): ByteLength {
  // in hexadecimal a suffix could be one more digit: there is none
  const match = /^(?:(\d+(?:\.\d+)?)([bkmgtpe]?)|(0x[\da-f]+))$/i.exec(text.trim());
  const power = SUFFIXES.indexOf((match?.[2] ?? '').toLowerCase().replace('b', ''));
  const bytes = Math.ceil(Number(match?.[1] ?? match?.[3]) * 1024 ** power);
  if (match === null || !Number.isSafeInteger(bytes))
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
