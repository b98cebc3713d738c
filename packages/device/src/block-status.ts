import { type ChainLayer, type OwnedExtent, subchainExtents } from '@downfold/chain';
import type { OperationOptions } from '@downfold/storage';
import { type ByteLength, type GuestRange, rangeEnd } from '@downfold/units';

/** How a range of the disk is stored: what NBD's `base:allocation` and `qemu:allocation-depth` tell. */
export interface BlockStatus extends GuestRange {
  /** No data is stored for it. */
  readonly hole: boolean;
  /** It reads as zeros. */
  readonly zero: boolean;
  /** The layer that decides: 1 is the active one, 2 the one below it, ...; 0: none does. */
  readonly depth: number;
}

/** The status of the first part of a range, non-empty: as much as one batch of the layers' metadata tells. */
export async function firstStatuses(
  layers: readonly ChainLayer[],
  range: GuestRange,
  options: OperationOptions,
): Promise<readonly BlockStatus[]> {
  const statuses: BlockStatus[] = [];
  const all = { base: -1, top: layers.length - 1 };
  for await (const batch of subchainExtents(layers, all, range, options)) {
    for (const extent of batch) append(statuses, statusOf(extent, layers.length));
    break;
  }
  return statuses;
}

/**
 * Joins what `next` tells from an offset on, until `range` is covered or `limit` statuses are out. Every status is as long as it can be,
 * in batches.
 */
export async function* joined(
  range: GuestRange,
  limit: number,
  next: (from: GuestRange['offset']) => Promise<readonly BlockStatus[]>,
): AsyncGenerator<readonly BlockStatus[], void, undefined> {
  let left = limit;
  let known: BlockStatus[] = [];
  for (let at = range.offset; at < rangeEnd(range) && known.length <= left; ) {
    for (const status of await next(at)) append(known, status);
    const last = known.at(-1) as BlockStatus;
    at = rangeEnd(last);
    if (known.length === 1 || known.length > left) continue;
    yield known.slice(0, -1);
    left -= known.length - 1;
    known = [last];
  }
  if (known.length > 0 && left > 0) yield known.slice(0, left);
}

function statusOf(extent: OwnedExtent, layers: number): BlockStatus {
  const { offset, length, status, owner } = extent;
  const hole = status === 'zero' || status === 'unallocated';
  return { offset, length, hole, zero: hole, depth: owner === null ? 0 : layers - owner };
}

function append(statuses: BlockStatus[], next: BlockStatus): void {
  const last = statuses.at(-1);
  if (last?.zero !== next.zero || last.hole !== next.hole || last.depth !== next.depth)
    statuses.push(next);
  else
    statuses[statuses.length - 1] = { ...last, length: (last.length + next.length) as ByteLength };
}
