import {
  alignDown,
  alignUp,
  type ByteLength,
  type GuestOffset,
  type GuestRange,
  rangeBetween,
  rangeEnd,
  splitRange,
} from '@downfold/units';
import type { LiveChain } from './live-chain.ts';

/** Zeros by metadata are made in pieces of this, so that the image may flush in between. */
const METADATA_PIECE = 2 ** 28;
/** Zeros as data are written in pieces of this. */
const DATA_PIECE = 2 ** 20;

/** Makes a range read as zeros, by metadata where the active layer can. As the others here it ends between two pieces when `signal` aborts. */
export async function zero(
  { active, below }: LiveChain,
  range: GuestRange,
  signal: AbortSignal,
): Promise<void> {
  for (const piece of splitRange(range, METADATA_PIECE)) {
    signal.throwIfAborted();
    await active.writeZeroes(piece, { fill: below, signal });
  }
}

/** Makes a range read as zeros and have space of its own. */
export async function zeroAsData(
  { active, below }: LiveChain,
  range: GuestRange,
  signal: AbortSignal,
): Promise<void> {
  const zeros = new Uint8Array(Math.min(DATA_PIECE, range.length));
  for (const { offset, length } of splitRange(range, DATA_PIECE)) {
    // not every format looks at it
    signal.throwIfAborted();
    await active.write(offset, zeros.subarray(0, length), { fill: below, signal });
  }
}

/** Gives back the space of units of allocation. They read as zeros; what lies below does not show, now or later. */
export async function giveBack(
  chain: LiveChain,
  units: GuestRange,
  signal: AbortSignal,
): Promise<void> {
  const { active, below } = chain;
  if (below !== null || active.backing !== null) return zero(chain, units, signal);
  for (const piece of splitRange(units, METADATA_PIECE)) {
    signal.throwIfAborted();
    await active.deallocate(piece, { signal });
  }
}

/** The units of allocation of the active layer that lie wholly in a range; the last one may be cut by the end of the disk. */
export function unitsIn({ active }: LiveChain, range: GuestRange): GuestRange {
  const { allocationGranularity, virtualSize } = active.geometry;
  const end = rangeEnd(range);
  const start = alignUp(range.offset, allocationGranularity);
  const stop = end >= virtualSize ? virtualSize : alignDown(end, allocationGranularity);
  return stop > start
    ? rangeBetween(start, stop)
    : { offset: range.offset as GuestOffset, length: 0 as ByteLength };
}
