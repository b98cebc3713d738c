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
class LayerCursor<Owner> {
  /** Who decides what this layer decides. */
  readonly owner: Owner;
  /** Bytes of the layer's disk. */
  readonly size: number;
  readonly #batches: AsyncIterator<readonly Extent[]>;
  #batch: readonly Extent[] = [];
  #next = 0;

  constructor({ layer, owner }: OwnedLayer<Owner>, range: GuestRange, options?: OperationOptions) {
    this.owner = owner;
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
    if (done === true) throw new Error(`the extents of layer ${this.owner} end too early`);
    this.#batch = value;
    this.#next = 0;
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }
}

/** Extents of one batch at most. */
const BATCH_EXTENTS = 1024;

/** A layer, and how its extents name it. */
export interface OwnedLayer<Owner> {
  readonly layer: ChainLayer;
  readonly owner: Owner;
}

/** The allocation of layers base+1 to top over `range`, as `mergedExtents` tells it; owners are indexes into `layers`. */
export function subchainExtents(
  layers: readonly ChainLayer[],
  { base, top }: Subchain,
  range: GuestRange,
  options?: OperationOptions,
): AsyncGenerator<readonly OwnedExtent[], void, undefined> {
  const owned = layers.map((layer, owner) => ({ layer, owner })).slice(base + 1, top + 1);
  return mergedExtents(owned, range, options);
}

/**
 * Merges the allocation of `layers`, lowest first, over `range`: for each byte, the uppermost layer that is not unallocated there decides.
 * Past the end of a layer, that layer reads as zeros and hides what lies below it. Ordered, gapless, in batches; memory is one
 * metadata table a layer. What none of them decides is `unallocated`, owner null.
 */
export async function* mergedExtents<Owner>(
  layers: readonly OwnedLayer<Owner>[],
  range: GuestRange,
  options?: OperationOptions,
): AsyncGenerator<readonly OwnedExtent<Owner>[], void, undefined> {
  const cursors = layers.toReversed().map((layer) => new LayerCursor(layer, range, options));
  const end = rangeEnd(range);
  let batch: OwnedExtent<Owner>[] = [];
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
function decide<Owner>(
  cursors: readonly LayerCursor<Owner>[],
  at: number,
  end: number,
): OwnedExtent<Owner> | LayerCursor<Owner> {
  let stop = end;
  for (const cursor of cursors) {
    if (at >= cursor.size) {
      const [offset, length] = [at as GuestOffset, (stop - at) as ByteLength];
      return { offset, length, status: 'zero', preallocated: false, owner: cursor.owner };
    }
    const extent = cursor.at(at);
    if (extent === null) return cursor;
    stop = Math.min(stop, rangeEnd(extent));
    if (extent.status !== 'unallocated') return owned(extent, at, stop, cursor.owner);
  }
  return {
    offset: at as GuestOffset,
    length: (stop - at) as ByteLength,
    status: 'unallocated',
    owner: null,
  };
}

/** The part of `extent` in [at, stop). One literal a kind, nothing copied together: there are millions. */
function owned<Owner>(extent: Extent, at: number, stop: number, owner: Owner): OwnedExtent<Owner> {
  const offset = at as GuestOffset;
  const length = (stop - at) as ByteLength;
  switch (extent.status) {
    case 'data': {
      const host = (extent.host + (at - extent.offset)) as HostOffset;
      return { offset, length, status: 'data', host, owner };
    }
    case 'zero':
      return { offset, length, status: 'zero', preallocated: extent.preallocated, owner };
    default:
      return { offset, length, status: extent.status, owner };
  }
}

/** Adds a run, joined to the last one when the two are one. */
function append<Owner>(batch: OwnedExtent<Owner>[], extent: OwnedExtent<Owner>): void {
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
