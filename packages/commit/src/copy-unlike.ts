import type { CowSource, Image } from '@downfold/image';
import {
  alignDown,
  type GuestOffset,
  type GuestRange,
  guestOffset,
  rangeEnd,
} from '@downfold/units';

/** Bytes compared as one where an image has no units of its own. */
const SECTOR_BYTES = 512;

/**
 * Writes into `image` what it shows now, in those of its units within `range` where another disk shows something else: afterwards
 * `image` shows the same over either. Runs of units that differ are one write.
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
  const unit = Math.max(image.geometry.allocationGranularity, SECTOR_BYTES);
  const end = rangeEnd(range);
  const stopOf = (at: number): number => Math.min(end, alignDown(at, unit) + unit);
  const differs = (at: number): boolean => {
    const [from, to] = [at - range.offset, stopOf(at) - range.offset];
    return mine.compare(theirs, from, to, from, to) !== 0;
  };
  for (let at: number = range.offset; at < end; ) {
    let stop = stopOf(at);
    const different = differs(at);
    while (stop < end && differs(stop) === different) stop = stopOf(stop);
    if (different)
      await writeRun(
        image,
        guestOffset(at),
        mine.subarray(at - range.offset, stop - range.offset),
        fill,
      );
    at = stop;
  }
}

async function writeRun(
  image: Image,
  offset: GuestOffset,
  bytes: Buffer,
  fill: CowSource | null,
): Promise<void> {
  const zero = bytes.every((byte) => byte === 0);
  if (zero)
    await image.writeZeroes({ offset, length: bytes.length as GuestRange['length'] }, { fill });
  else await image.write(offset, bytes, { fill });
}
