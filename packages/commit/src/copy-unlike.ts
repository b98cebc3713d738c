import type { CowSource, Image } from '@downfold/image';
import { alignDown, type GuestRange, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';

/** Where an image has no units of its own. */
const SECTOR_BYTES = 512;

/** Bytes of an image that are compared as one. */
export function comparedAsOne({ geometry }: Pick<Image, 'geometry'>): number {
  return Math.max(geometry.allocationGranularity, SECTOR_BYTES);
}

/** What has to happen to a unit: nothing, or it becomes zeros, or bytes. */
type Fate = 'same' | 'zero' | 'data';

/**
 * Writes into `image` what it shows now, in those of its units within `range` where another disk shows something else: afterwards
 * `image` shows the same over either. Runs of units with the same fate are one write.
 */
export async function copyUnlike(
  image: Image,
  range: GuestRange,
  now: CowSource,
  other: CowSource,
  fill: CowSource | null,
): Promise<void> {
  const [mine, theirs] = [Buffer.alloc(range.length), Buffer.alloc(range.length)];
  await now(range.offset, mine);
  await other(range.offset, theirs);
  const unit = comparedAsOne(image);
  const end = rangeEnd(range);
  const zeros = Buffer.alloc(Math.min(unit, range.length));
  const stopOf = (at: number): number => Math.min(end, alignDown(at, unit) + unit);
  const fateOf = (at: number): Fate => {
    const [from, to] = [at - range.offset, stopOf(at) - range.offset];
    if (mine.compare(theirs, from, to, from, to) === 0) return 'same';
    return mine.compare(zeros, 0, to - from, from, to) === 0 ? 'zero' : 'data';
  };
  for (let at: number = range.offset; at < end; ) {
    let stop = stopOf(at);
    const fate = fateOf(at);
    while (stop < end && fateOf(stop) === fate) stop = stopOf(stop);
    const run = rangeBetween(guestOffset(at), stop);
    const bytes = mine.subarray(at - range.offset, stop - range.offset);
    // the other disk is not below it yet
    if (fate === 'zero') await image.writeZeroes(run, { fill, hides: true });
    else if (fate === 'data') await image.write(run.offset, bytes, { fill });
    at = stop;
  }
}
