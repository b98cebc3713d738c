import { type GuestRange, rangeEnd } from '@downfold/units';
import type { Extent } from '../extent.ts';
import type { Image } from '../image.ts';
import { expectEqual, fail } from './expect.ts';
import { type Interval, joined } from './intervals.ts';

/** The extents of `range`, once they are known to be ordered, gapless, non-empty, maximal in a batch, and exactly `range`. */
export async function extentsOf(image: Image, range: GuestRange): Promise<readonly Extent[]> {
  const unit = image.geometry.allocationGranularity;
  const all: Extent[] = [];
  let end: number = range.offset;
  for await (const batch of image.extents(range)) {
    const extents = [...batch];
    extents.forEach((extent, index) => {
      expectEqual(extent.offset, end, 'offset of an extent, after the one before it');
      if (!(extent.length > 0)) fail(`extent of ${extent.length} bytes at ${extent.offset}`);
      const before = extents[index - 1];
      if (before !== undefined && continues(before, extent))
        fail(`extents at ${before.offset} and ${extent.offset} of one batch are one run`);
      if (before !== undefined && before.status !== extent.status && extent.offset % unit !== 0)
        fail(`status changes at ${extent.offset}, inside an allocation unit`);
      end = rangeEnd(extent);
    });
    all.push(...extents);
  }
  expectEqual(end, rangeEnd(range), 'end of the last extent');
  return all;
}

/** The bytes that `extents` say are `status`. */
export function bytesThatAre(
  status: Extent['status'],
  extents: readonly Extent[],
): readonly Interval[] {
  const found = extents.filter((extent) => extent.status === status);
  return joined(
    found.map((extent) => [extent.offset, rangeEnd(extent)]),
    status,
  );
}

/** Whether two neighbours should have been one extent. Of preallocated zeros that cannot be seen: where their places lie is in the columns only. */
function continues(a: Extent, b: Extent): boolean {
  if (a.status === 'data') return b.status === 'data' && b.host === a.host + a.length;
  if (a.status === 'zero') return b.status === 'zero' && !a.preallocated && !b.preallocated;
  return a.status === b.status;
}
