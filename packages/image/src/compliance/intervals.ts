import { fail } from './expect.ts';

/** Bytes `from` (included) to `to` (excluded). */
export type Interval = readonly [from: number, to: number];

/** `intervals` in order, neighbours joined. Throws when two have a byte in common. */
export function joined(intervals: readonly Interval[], what: string): readonly Interval[] {
  const result: [number, number][] = [];
  for (const [from, to] of intervals.filter(notEmpty).sort((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last === undefined || from > last[1]) result.push([from, to]);
    else if (from < last[1]) fail(`${what}: byte ${from} twice`);
    else last[1] = to;
  }
  return result;
}

/** What of `intervals` is in none of `others`. */
export function subtract(
  intervals: readonly Interval[],
  others: readonly Interval[],
): readonly Interval[] {
  return others.reduce(
    (rest, [from, to]) =>
      rest
        .flatMap(([start, end]): Interval[] => [
          [start, Math.min(end, from)],
          [Math.max(start, to), end],
        ])
        .filter(notEmpty),
    intervals.filter(notEmpty),
  );
}

function notEmpty([from, to]: Interval): boolean {
  return to > from;
}
