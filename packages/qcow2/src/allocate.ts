import { imageError } from './corrupt.ts';
import { cleanTable, type L2Table, markDirty } from './l2-cache.ts';
import { forgetMetadata, registerMetadata } from './overlap.ts';
import { dropReference, takeClusters } from './refcounts.ts';
import type { Qcow2State, Release, Writer } from './state.ts';
import { offsetLow, ownedHigh } from './structures.ts';
import { l1Owned, loadL2 } from './tables.ts';

/** The writer's part of a state. @throws ImageError `IMAGE_READ_ONLY`, or `IMAGE_CORRUPT` after an overlap. */
export function writerOf(state: Qcow2State): Writer {
  if (state.writer === null)
    throw imageError('IMAGE_READ_ONLY', state.label, 'was opened for reading only');
  if (state.writer.poisoned)
    throw imageError(
      'IMAGE_CORRUPT',
      state.label,
      'takes no more writes after an earlier failure; check it',
    );
  return state.writer;
}

/** A run of fresh clusters: `offset` in bytes, 1 to `want` clusters. Their refcount is 1 from now on, in memory. */
export async function allocate(
  state: Qcow2State,
  want: number,
): Promise<{ readonly offset: number; readonly count: number }> {
  const writer = writerOf(state);
  const { cluster, count } = await takeClusters(state, writer.refcounts, writer.nextFree, want);
  writer.nextFree = cluster + count;
  const offset = cluster * state.geometry.clusterSize;
  state.fileEnd = Math.max(state.fileEnd, offset + count * state.geometry.clusterSize);
  return { offset, count };
}

/** Lets clusters go: their refcounts go down after the next flush made the mapping without them durable (W5). */
export function release(state: Qcow2State, offset: number, length: number): void {
  const { clusterSize } = state.geometry;
  const first = Math.floor(offset / clusterSize);
  const last = Math.floor((offset + length - 1) / clusterSize);
  writerOf(state).releases.push({ offset: first * clusterSize, clusters: last - first + 1 });
}

/** Lowers the refcounts of released clusters; resolves with those that nothing refers to any more. */
export async function applyReleases(
  state: Qcow2State,
  writer: Writer,
  releases: readonly Release[],
): Promise<readonly number[]> {
  const free: number[] = [];
  const { clusterSize } = state.geometry;
  for (const { offset, clusters } of releases) {
    for (let at = offset; at < offset + clusters * clusterSize; at += clusterSize) {
      if ((await dropReference(state, writer.refcounts, at / clusterSize)) > 0) continue;
      forgetMetadata(state, at);
      free.push(at);
    }
  }
  return free;
}

/**
 * The L2 table of an L1 entry, ready to be changed: made when there is none, copied when a snapshot shares it.
 */
export async function ownTable(state: Qcow2State, l1Index: number): Promise<L2Table> {
  const table = await loadL2(state, l1Index);
  if (table !== null && l1Owned(state, l1Index)) return table;
  const { offset } = await allocate(state, 1);
  const words = table?.words.slice() ?? new Uint32Array(state.geometry.clusterSize / 4);
  const own = { ...cleanTable(l1Index, offset, words), fresh: true };
  if (table !== null) release(state, table.offset, 1);
  state.l1[2 * l1Index] = ownedHigh(offset);
  state.l1[2 * l1Index + 1] = offsetLow(offset);
  writerOf(state).l1Changed.add(l1Index);
  registerMetadata(state, offset, 'L2 table');
  state.l2.put(own);
  return own;
}

/** Notes that entries [from, to) of a table changed, and keeps the table in memory until they are flushed. */
export function touchEntries(state: Qcow2State, table: L2Table, from: number, to: number): void {
  const { entryWords } = state.geometry;
  markDirty(table, from * entryWords, to * entryWords);
  state.l2.put(table);
}
