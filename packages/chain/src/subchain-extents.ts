import {
  type ExtentBatch,
  ExtentCursor,
  type ExtentsOptions,
  isPlaced,
  KIND,
} from '@downfold/image';
import {
  type GuestOffset,
  type GuestRange,
  intersect,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import type { ChainLayer, Subchain } from './layer.ts';
import { type OwnedBatch, OwnedColumns, OwnedList } from './owned-batch.ts';

/** One layer's extents. */
class LayerCursor<Owner> extends ExtentCursor {
  /** Who decides what this layer decides. */
  readonly owner: Owner;
  /** Bytes of the layer's disk. */
  readonly size: number;

  constructor({ layer, owner }: OwnedLayer<Owner>, range: GuestRange, options?: ExtentsOptions) {
    const { image } = layer;
    const size = image.geometry.virtualSize;
    const inside = intersect(range, rangeBetween(0 as GuestOffset, size));
    super(inside === null ? nothing() : image.extents(inside, options));
    this.owner = owner;
    this.size = size;
  }

  /** @throws Error when there are no more, although the layer does not end here */
  override async readOn(): Promise<boolean> {
    if (await super.readOn()) return true;
    throw endedEarly(this.owner);
  }
}

function endedEarly(owner: unknown): Error {
  return new Error(`the extents of layer ${owner} end too early`);
}

async function* nothing(): AsyncGenerator<ExtentBatch, void, undefined> {}

/** Extents of one batch at most, but for those of one layer that come as one. */
const BATCH_EXTENTS = 1024;
/** So many extents of one layer are handed on as they are: what would be joined across their ends is little. */
const LARGE_BATCH = 256;

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
  options?: ExtentsOptions,
): AsyncGenerator<OwnedBatch, void, undefined> {
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
  options?: ExtentsOptions,
): AsyncGenerator<OwnedBatch<Owner>, void, undefined> {
  const [only, another] = layers;
  if (only !== undefined && another === undefined) {
    yield* extentsOfOne(only, range, options);
    return;
  }
  const cursors = layers.toReversed().map((layer) => new LayerCursor(layer, range, options));
  const end = rangeEnd(range);
  let batch = new OwnedList<Owner>();
  try {
    for (let at: number = range.offset; at < end; ) {
      const next = decide(cursors, at, end, batch);
      if (typeof next !== 'number') {
        await next.readOn();
        continue;
      }
      at = next;
      if (batch.length >= BATCH_EXTENTS) {
        yield batch;
        batch = new OwnedList<Owner>();
        options?.signal?.throwIfAborted();
      }
    }
    if (batch.length > 0) yield batch;
  } finally {
    for (const cursor of cursors) await cursor.close();
  }
}

/** As `mergedExtents`, of one layer: what it decides, as it says it. */
async function* extentsOfOne<Owner>(
  { layer, owner }: OwnedLayer<Owner>,
  range: GuestRange,
  options?: ExtentsOptions,
): AsyncGenerator<OwnedBatch<Owner>, void, undefined> {
  const { image } = layer;
  const size = image.geometry.virtualSize;
  const inside = intersect(range, rangeBetween(0 as GuestOffset, size));
  let end: number = range.offset;
  let list = new OwnedList<Owner>();
  for await (const batch of inside === null ? nothing() : image.extents(inside, options)) {
    end = batch.ends[batch.length - 1] as number;
    const isAsItIs = batch.length >= LARGE_BATCH && isJoined(batch);
    if (!isAsItIs) list.addAll(batch, owner);
    if (isAsItIs || list.length >= BATCH_EXTENTS) {
      if (list.length > 0) yield list;
      list = new OwnedList<Owner>();
    }
    if (isAsItIs) yield new OwnedColumns(batch, owner);
    options?.signal?.throwIfAborted();
  }
  if (inside !== null && end < rangeEnd(inside)) throw endedEarly(owner);
  const start = Math.max(range.offset, size);
  if (start < rangeEnd(range)) list.addOwned(owner, KIND.zero, start, rangeEnd(range), 0);
  if (list.length > 0) yield list;
}

/** Whether no two neighbours of a batch could be one. */
function isJoined({ length, starts, kinds, hosts }: ExtentBatch): boolean {
  for (let index = 1; index < length; index++) {
    const kind = kinds[index];
    if (kind !== kinds[index - 1]) continue;
    if (!isPlaced(kind)) return false;
    const apart = (starts[index] as number) - (starts[index - 1] as number);
    if ((hosts[index] as number) - (hosts[index - 1] as number) === apart) return false;
  }
  return true;
}

/**
 * Adds to `batch` the run from `at` on that one layer decides, ending where any layer above it changes; returns its end, or the cursor that
 * has to read on first.
 */
function decide<Owner>(
  cursors: readonly LayerCursor<Owner>[],
  at: number,
  end: number,
  batch: OwnedList<Owner>,
): number | LayerCursor<Owner> {
  let stop = end;
  for (const cursor of cursors) {
    const { owner } = cursor;
    if (at >= cursor.size) {
      batch.addOwned(owner, KIND.zero, at, stop, 0);
      return stop;
    }
    const from = cursor.here(at);
    if (from === null) return cursor;
    const { index } = cursor;
    const kind = from.kinds[index] as number;
    stop = Math.min(stop, from.ends[index] as number);
    if (kind === KIND.unallocated) continue;
    const inside = at - (from.starts[index] as number);
    batch.addOwned(owner, kind, at, stop, (from.hosts[index] as number) + inside);
    return stop;
  }
  batch.addOwned(null, KIND.unallocated, at, stop, 0);
  return stop;
}
