import { type CowSource, type Image, KIND } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { alignDown, type GuestRange, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { comparedAsOne } from './copy-unlike.ts';

/** Bytes compared at once. */
const PIECE_BYTES = 1 << 20;

/**
 * Deallocates what of `range` an image holds, unit by unit, where `below` shows the same: afterwards it shows what it did. For a job that was interrupted
 * when all that was left was to empty the image: somebody may have written to it since, and what is newer stays. Resolves with the bytes that stay.
 */
export async function deallocateSame(
  image: Image,
  range: GuestRange,
  below: CowSource,
  options?: OperationOptions,
): Promise<number> {
  const unit = comparedAsOne(image);
  const same: [start: number, end: number][] = [];
  let kept = 0;
  for await (const { length, starts, ends, kinds } of image.extents(range, options))
    for (let index = 0; index < length; index++) {
      if (kinds[index] === KIND.unallocated) continue;
      const held = rangeBetween(guestOffset(starts[index] as number), ends[index] as number);
      kept += await compared(image, held, below, unit, same);
    }
  for (const [start, end] of same)
    await image.deallocate(rangeBetween(guestOffset(start), end), options);
  return kept;
}

/** Notes the runs of units that both show alike; resolves with the bytes of the others. */
async function compared(
  image: Image,
  range: GuestRange,
  below: CowSource,
  unit: number,
  same: [start: number, end: number][],
): Promise<number> {
  const end = rangeEnd(range);
  let kept = 0;
  for (let at: number = range.offset; at < end; ) {
    const stop = Math.min(end, alignDown(at, unit) + Math.max(unit, PIECE_BYTES));
    const [mine, theirs] = [Buffer.alloc(stop - at), Buffer.alloc(stop - at)];
    await image.read(guestOffset(at), mine, below);
    await below(guestOffset(at), theirs);
    for (let from = at; from < stop; ) {
      const to = Math.min(stop, alignDown(from, unit) + unit);
      const [start, length] = [from - at, to - from];
      const last = same.at(-1);
      if (mine.compare(theirs, start, start + length, start, start + length) !== 0) kept += length;
      else if (last !== undefined && last[1] === from) last[1] = to;
      else same.push([from, to]);
      from = to;
    }
    at = stop;
  }
  return kept;
}
