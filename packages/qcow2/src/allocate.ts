import { cleanTable, type L2Table } from './l2-table.ts';
import { assertNoOverlap, registerMetadata } from './overlap.ts';
import { type ClusterRun, takeAtOnce, takeClusters, takeLongRun } from './refcounts.ts';
import type { Qcow2State } from './state.ts';
import { offsetLow, ownedHigh } from './structures.ts';
import { l1Owned, loadL2 } from './tables.ts';
import { writerOf } from './writer.ts';

/** A place in the file: `offset` in bytes, and how many clusters. */
export interface Place {
  readonly offset: number;
  readonly count: number;
}

/** A run of fresh clusters, 1 to `want` of them. Their refcount is 1 from now on, in memory. */
export async function allocate(state: Qcow2State, want: number): Promise<Place> {
  const writer = writerOf(state);
  const run = await takeClusters(state, writer.refcounts, writer.nextFree, want);
  writer.nextFree = run.cluster + run.count;
  const place = placeOf(state, run);
  // a refcount may be wrong: what holds metadata is not free (W13), also not for other metadata
  await assertNoOverlap(state, place.offset, place.count * state.geometry.clusterSize, null);
  return place;
}

/**
 * As `allocate`, without waiting; null: only `allocate` can say. Whoever writes there looks first whether it holds metadata (W13).
 */
export function allocateAtOnce(state: Qcow2State, want: number): Place | null {
  const writer = writerOf(state);
  const cluster = takeAtOnce(state, writer.refcounts, writer.nextFree, want);
  if (cluster === null) return null;
  writer.nextFree = cluster + want;
  return placeOf(state, { cluster, count: want });
}

/** As `allocate`, but all `want` clusters in one piece. Shorter runs met on the way are let go. */
export async function allocateAll(state: Qcow2State, want: number): Promise<Place> {
  const { clusterSize, refcountsPerBlock } = state.geometry;
  // a block counts itself as well
  if (want > refcountsPerBlock - 1)
    return placeOf(state, await takeLongRun(state, writerOf(state).refcounts, want));
  let run = await allocate(state, want);
  while (run.count < want) {
    const more = await allocate(state, want - run.count);
    if (more.offset === run.offset + run.count * clusterSize)
      run = { offset: run.offset, count: run.count + more.count };
    else {
      release(state, run.offset, run.count * clusterSize);
      run = more;
    }
  }
  return run;
}

function placeOf(state: Qcow2State, { cluster, count }: ClusterRun): Place {
  const offset = cluster * state.geometry.clusterSize;
  state.fileEnd = Math.max(state.fileEnd, offset + count * state.geometry.clusterSize);
  return { offset, count };
}

/** Runs `use` of freshly allocated clusters; when it fails they are let go. */
export async function releaseOnFailure<T>(
  state: Qcow2State,
  place: Place,
  use: () => Promise<T>,
): Promise<T> {
  try {
    return await use();
  } catch (cause) {
    release(state, place.offset, place.count * state.geometry.clusterSize);
    throw cause;
  }
}

/** Lets clusters go: their refcounts go down after the next flush made the mapping without them durable (W5). */
export function release(state: Qcow2State, offset: number, length: number): void {
  const { clusterSize } = state.geometry;
  const releases = state.writer?.releases ?? [];
  const first = Math.floor(offset / clusterSize);
  const clusters = Math.floor((offset + length - 1) / clusterSize) - first + 1;
  const last = releases.at(-1);
  if (last?.references === 1 && last.offset + last.clusters * clusterSize === first * clusterSize)
    last.clusters += clusters;
  else releases.push({ offset: first * clusterSize, clusters, references: 1 });
}

/**
 * The L2 table of an L1 entry, ready to be changed: made when there is none, copied when a snapshot shares it.
 */
export async function ownTable(state: Qcow2State, l1Index: number): Promise<L2Table> {
  const table = await loadL2(state, l1Index);
  if (table !== null && l1Owned(state, l1Index)) return table;
  const { offset } = await allocate(state, 1);
  const words = table?.words.slice() ?? new Uint32Array(state.geometry.clusterSize / 4);
  const own = { ...cleanTable(l1Index, offset, words, table?.lower), fresh: true };
  // what a staging has from its image is the image's still
  if (table !== null && state.stagedOn === null) release(state, table.offset, 1);
  state.l1[2 * l1Index] = ownedHigh(offset);
  state.l1[2 * l1Index + 1] = offsetLow(offset);
  writerOf(state).l1Changed.add(l1Index);
  registerMetadata(state, offset, 'L2 table');
  state.l2.touch(own);
  return own;
}

/** Notes that entries [from, to) of a table are about to change, and keeps it in memory until they are flushed. */
export function touchEntries(state: Qcow2State, table: L2Table, from: number, to: number): void {
  const { entryWords } = state.geometry;
  table.dirtyFrom = Math.min(table.dirtyFrom, from * entryWords);
  table.dirtyTo = Math.max(table.dirtyTo, to * entryWords);
  state.l2.touch(table);
}
