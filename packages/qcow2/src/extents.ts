import { type ExtentBatch, ExtentList, KIND, type Kind } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import { corrupt } from './corrupt.ts';
import { entryAt, hasHost, hostOf, isExternal } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COMPRESSED, LOW_ZERO } from './structures.ts';
import { type TableScanner, tableScanner } from './table-scanner.ts';
import { assertClusterInFile, l2OffsetAt, loadL2, readL2 } from './tables.ts';

/**
 * Extents of `range`, a batch for each L2 table; stretches without tables are one extent, however long. Does not stop at the
 * virtual size: that is the caller's affair.
 */
export async function* imageExtents(
  state: Qcow2State,
  range: GuestRange,
  options?: OperationOptions,
): AsyncGenerator<ExtentBatch, void, undefined> {
  const { l2Reach } = state.geometry;
  const end = range.offset + range.length;
  const walk = isLong(state, range.length) ? new TableWalk(state) : null;
  let at: number = range.offset;
  while (at < end) {
    options?.signal?.throwIfAborted();
    const l1Index = Math.floor(at / l2Reach);
    const table = walk === null ? await loadL2(state, l1Index) : await walk.load(l1Index);
    let stop = Math.min(end, (l1Index + 1) * l2Reach);
    if (table === null) {
      stop = Math.min(end, nextTable(state, l1Index + 1, Math.ceil(end / l2Reach)) * l2Reach);
      const batch = new ExtentList();
      batch.add(KIND.unallocated, at, stop, 0);
      yield batch;
    } else yield walk?.scan(table, at, stop) ?? scanTable(state, table, at, stop);
    at = stop;
  }
}

/** The first L1 entry from `index` on that has a table, in the file or in memory; `last` when none before it has. */
function nextTable(state: Qcow2State, index: number, last: number): number {
  const { l1 } = state;
  const asInFile = isAsInFile(state);
  for (let next = index; next < last; next++) {
    // by word: a large disk has millions of entries, and most may be empty
    if (asInFile && l1[2 * next] === 0 && l1[2 * next + 1] === 0) continue;
    if (state.l2.get(next) !== undefined || l2OffsetAt(state, next) !== 0) return next;
  }
  return last;
}

/** Whether all tables are as the file has them: only who writes has others, and tables that no L1 entry refers to yet. */
function isAsInFile({ writer, stagedOn }: Qcow2State): boolean {
  return writer === null && stagedOn === null;
}

/** Whether a walk over `length` bytes is over more than the cache holds, of an image that nobody changes. */
function isLong(state: Qcow2State, length: number): boolean {
  return isAsInFile(state) && length > state.l2.most * state.geometry.l2Reach;
}

/**
 * A walk over many tables. Each is read into the same memory: it is looked at once, and in the cache it would drive out those that reads want
 * again.
 */
class TableWalk {
  readonly #state: Qcow2State;
  readonly #scanner: TableScanner | null;
  readonly #bytes: Uint8Array;

  constructor(state: Qcow2State) {
    this.#state = state;
    this.#scanner = tableScanner(state);
    this.#bytes = this.#scanner?.bytes ?? new Uint8Array(state.geometry.clusterSize);
  }

  async load(l1Index: number): Promise<L2Table | null> {
    return this.#state.l2.get(l1Index) ?? (await readL2(this.#state, l1Index, this.#bytes));
  }

  /** The runs of a table, when the quick way can tell. */
  scan(table: L2Table, from: number, to: number): ExtentBatch | null {
    if (table.words.buffer !== this.#scanner?.bytes.buffer) return null;
    return this.#scanner.scan(table.index * this.#state.geometry.l2Reach, from, to);
  }
}

/** The runs of guest bytes [from, to), all in one table. @throws ImageError `IMAGE_CORRUPT` */
export function scanTable(
  state: Qcow2State,
  table: L2Table,
  from: number,
  to: number,
): ExtentBatch {
  const batch = new ExtentList();
  if (state.geometry.extendedL2) scanExtended(state, table, from, to, batch);
  else scanStandard(state, table, from, to, batch);
  assertInFile(state, batch);
  return batch;
}

/** Data clusters that are mapped lie in the file. @throws ImageError `IMAGE_CORRUPT` */
function assertInFile(state: Qcow2State, { kinds, hosts, starts, ends }: ExtentList): void {
  // past the end of a data file are zeros
  if (isExternal(state)) return;
  const { clusterSize } = state.geometry;
  for (let index = 0; index < kinds.length; index++) {
    if (kinds[index] !== KIND.data) continue;
    const host = hosts[index] as number;
    const length = (ends[index] as number) - (starts[index] as number);
    const first = host - (host % clusterSize);
    const last = host + length - 1;
    const whole = last - (last % clusterSize) + clusterSize - first;
    assertClusterInFile(state, first, whole, 'data cluster', first);
  }
}

function scanStandard(
  state: Qcow2State,
  table: L2Table,
  from: number,
  to: number,
  batch: ExtentList,
): void {
  const { clusterSize, l2Reach } = state.geometry;
  const base = table.index * l2Reach;
  const { words } = table;
  const last = Math.ceil((to - base) / clusterSize);
  const external = isExternal(state);
  for (let index = Math.floor((from - base) / clusterSize); index < last; ) {
    const high = words[2 * index] as number;
    const low = words[2 * index + 1] as number;
    let kind: Kind = KIND.compressed;
    let host = 0;
    if ((high & HIGH_COMPRESSED) === 0) {
      host = hostOf(state, table, index);
      const placed = hasHost(state, high, host);
      if (low & LOW_ZERO) kind = placed ? KIND.preallocatedZero : KIND.zero;
      else kind = placed ? KIND.data : KIND.unallocated;
    }
    let next = index + 1;
    if (kind === KIND.data) next = endOfData(words, index, last, clusterSize);
    // two zero clusters at one place of a data file: the second is not where it must be
    else if (!external || kind !== KIND.preallocatedZero) next = endOfSame(words, index, last);
    const start = base + index * clusterSize;
    const at = Math.max(from, start);
    batch.add(kind, at, Math.min(to, base + next * clusterSize), host + (at - start));
    index = next;
  }
}

/** First entry from `index` on, up to `last`, that does not have the flags of the one before and the cluster behind it. */
function endOfData(words: Uint32Array, index: number, last: number, clusterSize: number): number {
  let high = words[2 * index] as number;
  let low = words[2 * index + 1] as number;
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
  const high = words[2 * index];
  const low = words[2 * index + 1];
  let next = index + 1;
  while (next < last && words[2 * next] === high && words[2 * next + 1] === low) next++;
  return next;
}

function scanExtended(
  state: Qcow2State,
  table: L2Table,
  from: number,
  to: number,
  batch: ExtentList,
): void {
  const { clusterSize, unitSize, l2Reach } = state.geometry;
  const base = table.index * l2Reach;
  const { words } = table;
  for (let at = from; at < to; ) {
    const index = Math.floor((at - base) / clusterSize);
    const start = base + index * clusterSize;
    const stop = Math.min(to, start + clusterSize);
    const high = words[4 * index] as number;
    const zero = words[4 * index + 2] as number;
    const allocated = words[4 * index + 3] as number;
    if (high & HIGH_COMPRESSED) {
      if (zero !== 0 || allocated !== 0)
        throw corrupt(
          state.label,
          'compressed cluster with a subcluster bitmap',
          entryAt(table, 4 * index),
        );
      batch.add(KIND.compressed, at, stop, 0);
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
      if ((allocated >>> unit) & 1) batch.add(KIND.data, at, end, host + (at - start));
      else if ((zero >>> unit) & 1)
        batch.add(placed ? KIND.preallocatedZero : KIND.zero, at, end, host + (at - start));
      else batch.add(KIND.unallocated, at, end, 0);
      at = end;
    }
  }
}
