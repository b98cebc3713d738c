import type { Extent } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import type { ByteLength, GuestOffset, GuestRange, HostOffset } from '@downfold/units';
import { corrupt } from './corrupt.ts';
import { entryAt, hasHost, hostOf, isExternal } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COMPRESSED, LOW_ZERO } from './structures.ts';
import { assertClusterInFile, l2OffsetAt, loadL2, readL2 } from './tables.ts';

const UNALLOCATED = 0;
const DATA = 1;
const COMPRESSED = 2;
const ZERO = 3;
const ZERO_PREALLOCATED = 4;

/** Collects clusters into maximal runs without an object per cluster. */
class Runs {
  readonly #state: Qcow2State;
  readonly #done: Extent[] = [];
  #kind = UNALLOCATED;
  #start = 0;
  #end = 0;
  #host = 0;

  constructor(state: Qcow2State) {
    this.#state = state;
  }

  /** Adds guest bytes [start, end); they follow the last ones. `host` counts for data only. */
  add(kind: number, start: number, end: number, host: number): void {
    const follows = this.#end > this.#start && kind === this.#kind;
    if (follows && (kind !== DATA || host === this.#host + (start - this.#start))) {
      this.#end = end;
      return;
    }
    this.#close();
    this.#kind = kind;
    this.#start = start;
    this.#end = end;
    this.#host = host;
  }

  finish(): readonly Extent[] {
    this.#close();
    return this.#done;
  }

  #close(): void {
    if (this.#end === this.#start) return;
    const offset = this.#start as GuestOffset;
    const length = (this.#end - this.#start) as ByteLength;
    // one literal a kind, nothing copied together: there are millions
    switch (this.#kind) {
      case DATA:
        this.#assertData();
        this.#done.push({ offset, length, status: 'data', host: this.#host as HostOffset });
        return;
      case COMPRESSED:
        this.#done.push({ offset, length, status: 'compressed' });
        return;
      case UNALLOCATED:
        this.#done.push({ offset, length, status: 'unallocated' });
        return;
      default:
        this.#done.push({
          offset,
          length,
          status: 'zero',
          preallocated: this.#kind === ZERO_PREALLOCATED,
        });
    }
  }

  #assertData(): void {
    // any place in a data file is data; past its end are zeros
    if (isExternal(this.#state)) return;
    const { clusterSize } = this.#state.geometry;
    const first = this.#host - (this.#host % clusterSize);
    const last = this.#host + (this.#end - this.#start) - 1;
    const length = last - (last % clusterSize) + clusterSize - first;
    assertClusterInFile(this.#state, first, length, 'data cluster', first);
  }
}

/**
 * Extents of `range`, a batch for each L2 table; stretches without tables are one extent, however long. Does not stop at the
 * virtual size: that is the caller's affair.
 */
export async function* imageExtents(
  state: Qcow2State,
  range: GuestRange,
  options?: OperationOptions,
): AsyncGenerator<readonly Extent[], void, undefined> {
  const { l2Reach } = state.geometry;
  const end = range.offset + range.length;
  const load = tableLoader(state, range.length);
  let at: number = range.offset;
  while (at < end) {
    options?.signal?.throwIfAborted();
    const l1Index = Math.floor(at / l2Reach);
    const table = await load(l1Index);
    const runs = new Runs(state);
    let stop = Math.min(end, (l1Index + 1) * l2Reach);
    if (table === null) {
      let next = l1Index + 1;
      while (stop < end && state.l2.get(next) === undefined && l2OffsetAt(state, next) === 0)
        stop = Math.min(end, ++next * l2Reach);
      runs.add(UNALLOCATED, at, stop, 0);
    } else if (state.geometry.extendedL2) scanExtended(state, table, at, stop, runs);
    else scanStandard(state, table, at, stop, runs);
    yield runs.finish();
    at = stop;
  }
}

/**
 * How a walk over `length` bytes gets its tables. In a long one over an image that nobody changes, each is read into the same memory:
 * it is looked at once, and in the cache it would drive out those that reads want again.
 */
function tableLoader(
  state: Qcow2State,
  length: number,
): (l1Index: number) => Promise<L2Table | null> {
  if (state.writer !== null || state.stagedOn !== null || length <= state.geometry.l2Reach)
    return (l1Index) => loadL2(state, l1Index);
  const bytes = new Uint8Array(state.geometry.clusterSize);
  return (l1Index) => {
    const cached = state.l2.get(l1Index);
    return cached === undefined ? readL2(state, l1Index, bytes) : Promise.resolve(cached);
  };
}

function scanStandard(
  state: Qcow2State,
  table: L2Table,
  from: number,
  to: number,
  runs: Runs,
): void {
  const { clusterSize, l2Reach } = state.geometry;
  const base = table.index * l2Reach;
  const { words } = table;
  const last = Math.ceil((to - base) / clusterSize);
  for (let index = Math.floor((from - base) / clusterSize); index < last; ) {
    const [high, low] = [words[2 * index] as number, words[2 * index + 1] as number];
    let kind = COMPRESSED;
    let host = 0;
    if ((high & HIGH_COMPRESSED) === 0) {
      host = hostOf(state, table, index);
      const placed = hasHost(state, high, host);
      if (low & LOW_ZERO) kind = placed ? ZERO_PREALLOCATED : ZERO;
      else kind = placed ? DATA : UNALLOCATED;
    }
    const next =
      kind === DATA ? endOfData(words, index, last, clusterSize) : endOfSame(words, index, last);
    const start = base + index * clusterSize;
    const at = Math.max(from, start);
    runs.add(kind, at, Math.min(to, base + next * clusterSize), host + (at - start));
    index = next;
  }
}

/** First entry from `index` on, up to `last`, that does not have the flags of the one before and the cluster behind it. */
function endOfData(words: Uint32Array, index: number, last: number, clusterSize: number): number {
  let [high, low] = [words[2 * index] as number, words[2 * index + 1] as number];
  for (let next = index + 1; next < last; next++) {
    low += clusterSize;
    if (low >= 2 ** 32) {
      low -= 2 ** 32;
      high += 1;
    }
    if (words[2 * next] !== high || words[2 * next + 1] !== low) return next;
  }
  return last;
}

/** First entry from `index` on, up to `last`, that is another one. */
function endOfSame(words: Uint32Array, index: number, last: number): number {
  const [high, low] = [words[2 * index], words[2 * index + 1]];
  let next = index + 1;
  while (next < last && words[2 * next] === high && words[2 * next + 1] === low) next++;
  return next;
}

function scanExtended(
  state: Qcow2State,
  table: L2Table,
  from: number,
  to: number,
  runs: Runs,
): void {
  const { clusterSize, unitSize, l2Reach } = state.geometry;
  const base = table.index * l2Reach;
  const { words } = table;
  for (let at = from; at < to; ) {
    const index = Math.floor((at - base) / clusterSize);
    const start = base + index * clusterSize;
    const stop = Math.min(to, start + clusterSize);
    const high = words[4 * index] as number;
    const [zero, allocated] = [words[4 * index + 2] as number, words[4 * index + 3] as number];
    if (high & HIGH_COMPRESSED) {
      if (zero !== 0 || allocated !== 0)
        throw corrupt(
          state.label,
          'compressed cluster with a subcluster bitmap',
          entryAt(table, 4 * index),
        );
      runs.add(COMPRESSED, at, stop, 0);
      at = stop;
      continue;
    }
    const host = hostOf(state, table, index);
    const placed = hasHost(state, high, host);
    if ((zero & allocated) !== 0 || (allocated !== 0 && !placed))
      throw corrupt(state.label, 'invalid subcluster bitmap', entryAt(table, 4 * index));
    while (at < stop) {
      const unit = Math.floor((at - start) / unitSize);
      const end = Math.min(stop, start + (unit + 1) * unitSize);
      if ((allocated >>> unit) & 1) runs.add(DATA, at, end, host + (at - start));
      else if ((zero >>> unit) & 1) runs.add(placed ? ZERO_PREALLOCATED : ZERO, at, end, 0);
      else runs.add(UNALLOCATED, at, end, 0);
      at = end;
    }
  }
}
