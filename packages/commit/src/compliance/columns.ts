import type { Draw } from './draw.ts';
import type { SettingImage } from './setting.ts';

/**
 * What an image says of the second of two units of the disk: a letter of `cellOf`, or `E`: it ends before. Every image has a
 * first unit, drawn, so that no disk is empty.
 */
export type Status = string;

/** A digit of a counter that goes through every combination. */
export interface Digit<T> {
  readonly name: string;
  readonly values: readonly T[];
}

/** How many combinations there are. */
export function combinations(digits: readonly Digit<unknown>[]): number {
  return digits.reduce((product, { values }) => product * values.length, 1);
}

/** The combination at `index`, by name. */
export function combination<T>(digits: readonly Digit<T>[], index: number): ReadonlyMap<string, T> {
  const chosen = new Map<string, T>();
  let rest = index;
  for (const { name, values } of digits) {
    chosen.set(name, values[rest % values.length] as T);
    rest = Math.floor(rest / values.length);
  }
  return chosen;
}

/**
 * Up to `count` of the numbers below `total`, each once, spread: the first ones of every longer list are those of a shorter one.
 */
export function* spread(count: number, total: number): Generator<number, void, undefined> {
  // prime, and larger than any factor of a total: walks through all residues
  const stride = 1_000_003;
  for (let index = 0; index < Math.min(count, total); index++) yield (index * stride) % total;
}

/** An image of two units of the disk, each `width` sectors. Its own unit divides that. */
export function imageOf(
  name: string,
  backing: string | null,
  status: Status,
  shape: { readonly width: number; readonly unit: number },
  draw: Draw,
): SettingImage {
  const { width, unit } = shape;
  const any = (): string => draw.of(['d', 'z', '-', '-']);
  let cells = '';
  for (let at = 0; at < width; at += unit) cells += any().repeat(unit);
  if (status !== 'E') {
    cells += status.repeat(unit);
    for (let at = unit; at < width; at += unit) cells += any().repeat(unit);
    // the end of the disk may cut the last unit, or the last of several
    if (width > 1 && draw.once(4)) cells = cells.slice(0, -1);
  }
  return { name, backing, cells, unit, flat: false };
}
