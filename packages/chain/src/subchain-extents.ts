import type { Extent } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import {
  type ByteLength,
  type GuestOffset,
  type GuestRange,
  type HostOffset,
  intersect,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import type { ChainLayer, OwnedExtent, Subchain } from './layer.ts';

/** One layer's extents: where the merge stands in them. Only reading the next batch waits. */
class LayerCursor {
  /** Position of the layer in the chain. */
  readonly index: number;
  /** Bytes of the layer's disk. */
  readonly size: number;
  readonly #batches: AsyncIterator<readonly Extent[]>;
  #batch: readonly Extent[] = [];
  #next = 0;

  constructor(layer: ChainLayer, index: number, range: GuestRange, options?: OperationOptions) {
    this.index = index;
    this.size = layer.image.geometry.virtualSize;
    const inside = intersect(range, rangeBetween(0 as GuestOffset, this.size));
    this.#batches =
      inside === null
        ? emptyIterator()
        : layer.image.extents(inside, options)[Symbol.asyncIterator]();
  }

  /** The extent that holds byte `at`; null: it is not in this batch any more. `at` never goes back. */
  at(at: number): Extent | null {
    for (; this.#next < this.#batch.length; this.#next++) {
      const extent = this.#batch[this.#next] as Extent;
      if (rangeEnd(extent) > at) return extent;
    }
    return null;
  }

  async readOn(): Promise<void> {
    const { value, done } = await this.#batches.next();
    if (done === true) throw new Error(`the extents of layer ${this.index} end too early`);
    this.#batch = value;
    this.#next = 0;
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }
}

/** Extents of one batch at most. */
const BATCH_EXTENTS = 1024;

/**
 * Merges the allocation of layers base+1 to top over `range`: for each byte, the uppermost layer that is not unallocated there decides.
 * Past the end of a layer, that layer reads as zeros and hides what lies below. Ordered, gapless, in batches; memory is one
 * metadata table a layer. What no layer above base decides is `unallocated`, owner null.
 */
export async function* subchainExtents(
  layers: readonly ChainLayer[],
  { base, top }: Subchain,
  range: GuestRange,
  options?: OperationOptions,
): AsyncGenerator<readonly OwnedExtent[], void, undefined> {
  const cursors: LayerCursor[] = [];
  for (let index = top; index > base; index--)
    cursors.push(new LayerCursor(layers[index] as ChainLayer, index, range, options));
  const end = rangeEnd(range);
  let batch: OwnedExtent[] = [];
  try {
    for (let at: number = range.offset; at < end; ) {
      const extent = decide(cursors, at, end);
      if (extent instanceof LayerCursor) {
        await extent.readOn();
        continue;
      }
      append(batch, extent);
      at = rangeEnd(extent);
      if (batch.length >= BATCH_EXTENTS) {
        yield batch;
        batch = [];
        options?.signal?.throwIfAborted();
      }
    }
    if (batch.length > 0) yield batch;
  } finally {
    for (const cursor of cursors) await cursor.close();
  }
}

/** The run from `at` on that one layer decides, ending where any layer above it changes; or the cursor that has to read on first. */
function decide(
  cursors: readonly LayerCursor[],
  at: number,
  end: number,
): OwnedExtent | LayerCursor {
  let stop = end;
  for (const cursor of cursors) {
    if (at >= cursor.size) {
      const range = { offset: at as GuestOffset, length: (stop - at) as ByteLength };
      return { ...range, status: 'zero', preallocated: false, owner: cursor.index };
    }
    const extent = cursor.at(at);
    if (extent === null) return cursor;
    stop = Math.min(stop, rangeEnd(extent));
    if (extent.status !== 'unallocated') return owned(extent, at, stop, cursor.index);
  }
  const range = { offset: at as GuestOffset, length: (stop - at) as ByteLength };
  return { ...range, status: 'unallocated', owner: null };
}

function owned(extent: Extent, at: number, stop: number, owner: number): OwnedExtent {
  const range = { offset: at as GuestOffset, length: (stop - at) as ByteLength };
  if (extent.status === 'data')
    return {
      ...range,
      status: 'data',
      host: (extent.host + (at - extent.offset)) as HostOffset,
      owner,
    };
  if (extent.status === 'zero')
    return { ...range, status: 'zero', preallocated: extent.preallocated, owner };
  return { ...range, status: extent.status, owner };
}

/** Adds a run, joined to the last one when the two are one. */
function append(batch: OwnedExtent[], extent: OwnedExtent): void {
  const last = batch.at(-1);
  if (last === undefined || last.owner !== extent.owner || !continues(last, extent))
    batch.push(extent);
  else batch[batch.length - 1] = { ...last, length: (last.length + extent.length) as ByteLength };
}

function continues(last: Extent, next: Extent): boolean {
  if (last.status === 'data')
    return next.status === 'data' && next.host === last.host + last.length;
  if (last.status === 'zero')
    return next.status === 'zero' && next.preallocated === last.preallocated;
  return last.status === next.status;
}

function emptyIterator(): AsyncIterator<readonly Extent[]> {
  return { next: async () => ({ value: undefined, done: true }) };
}
