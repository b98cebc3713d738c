import { alignDown, alignUp } from '@downfold/units';
import type { Kind, Run } from './disk-source.ts';

/**
 * The same runs in whole units of the copy, the last one cut by `end`; neighbours of a kind are one. A unit that is of several kinds has to
 * be written: it is data.
 */
export async function* unitRuns(
  batches: AsyncIterable<readonly Run[]>,
  unit: number,
  end: number,
): AsyncGenerator<Run, void, undefined> {
  let last: Run = { kind: 'below', start: 0, end: 0 };
  // the unit, or run of units, that is not complete yet
  let kind: Kind = 'below';
  let start = -1;
  for await (const batch of batches)
    for (const part of batch.flatMap((run) => cutAtUnits(run, unit))) {
      if (start < 0) [kind, start] = [part.kind, part.start];
      else if (kind !== part.kind) kind = 'data';
      if (part.end % unit !== 0 && part.end !== end) continue;
      const whole: Run = { kind, start, end: part.end };
      start = -1;
      if (last.kind === whole.kind) last = { ...whole, start: last.start };
      else {
        if (last.end > last.start) yield last;
        last = whole;
      }
    }
  if (last.end > last.start) yield last;
}

/** A run in up to three parts: to the first unit border in it, whole units, and what is left. */
function cutAtUnits({ kind, start, end }: Run, unit: number): readonly Run[] {
  const first = Math.min(end, alignUp(start, unit));
  const last = Math.max(first, alignDown(end, unit));
  const borders = [start, first, last, end];
  return borders
    .slice(1)
    .map((to, index) => ({ kind, start: borders[index] as number, end: to }))
    .filter((part) => part.end > part.start);
}
