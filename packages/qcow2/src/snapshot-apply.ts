import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { assertCountable } from './countable.ts';
import { assertOwnData } from './data-file.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import { patchHeader } from './header-sector.ts';
import { hostClusters } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import { MetadataCache } from './metadata-cache.ts';
import { assertNoOverlap, registerMetadata } from './overlap.ts';
import { reclaimLeaks } from './reclaim.ts';
import { addReference } from './refcounts.ts';
import { readSnapshotL1, readSnapshots, snapshotNamed, snapshotState } from './snapshots.ts';
import { sameHost } from './stage-entries.ts';
import { releaseMapping } from './stage-publish.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COPIED } from './structures.ts';
import { loadL2 } from './tables.ts';
import { bytesOf } from './words.ts';
import { writerOf } from './writer.ts';

/**
 * Makes the disk show what a snapshot shows, its size included; the snapshot stays. What the disk will refer to is counted first (W1),
 * a fresh L1 table that refers to the snapshot's L2 tables follows, one write of the header's first sector points to it (W11), and
 * then what only the old mapping held is given back (W5). A crash leaves leaks at worst. Durable when it resolves. Reads under way
 * must be drained first. To be run in the mutation queue.
 * @throws ImageError `IMAGE_CORRUPT`, before anything is written, when the check finds more than leaks; `IMAGE_NO_SPACE` when
 * refcounts are too narrow; `IMAGE_LIMIT`
 */
export async function applySnapshot(state: Qcow2State, id: string): Promise<void> {
  assertOwnData(state, 'a snapshot');
  assertNoBitmaps(state);
  await reclaimLeaks(state);
  const snapshot = snapshotNamed(state, await readSnapshots(state), id);
  const view = snapshotState(state, snapshot, await readSnapshotL1(state, snapshot));
  await assertCountable(state, clustersToRefer(state, view), 'the snapshot as the disk as well');
  const l1TableOffset = await refer(state, view);
  await flushImage(state);
  const old = { ...state };
  const { l1Size, size } = view.header;
  await patchHeader(state, { l1TableOffset, l1Size, size }, BARRIER.snapshotApplied);
  state.l1 = disowned(view.l1, 2);
  state.l2 = new MetadataCache(state.geometry.clusterSize);
  state.lastCompressed = null;
  state.compressedAnew += 1;
  await releaseMapping(state, old);
  await flushImage(state);
}

/** As QEMU: what a bitmap says changed would no longer be all that did. */
function assertNoBitmaps(state: Qcow2State): void {
  if (writerOf(state).bitmaps.list.length === 0) return;
  const feature = 'applying a snapshot to an image with persistent bitmaps';
  throw imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}

/** Counts what the disk will refer to, and writes an L1 table for it, to be flushed. Resolves with its byte in the file. */
async function refer(state: Qcow2State, view: Qcow2State): Promise<number> {
  const writer = writerOf(state);
  for await (const { table, clusters } of tablesToRefer(state, view)) {
    for (const cluster of clusters) await addReference(state, writer.refcounts, cluster);
    registerMetadata(state, table.offset, 'L2 table');
    await clearFlags(state, table);
    if (isMuchDirty(state)) await flushImage(state);
  }
  return await writeFresh(state, 'L1 table', bytesOf(disowned(view.l1, 2)));
}

/** An L2 table of the snapshot that is not the disk's, and the clusters that get a reference with it: its own, and those of its entries. */
interface TableToRefer {
  readonly table: L2Table;
  readonly clusters: readonly number[];
}

async function* tablesToRefer(state: Qcow2State, view: Qcow2State): AsyncGenerator<TableToRefer> {
  const { clusterSize, l2Entries, entryWords } = state.geometry;
  for (let l1Index = 0; 2 * l1Index < view.l1.length; l1Index++) {
    if (sameHost(view.l1, state.l1, 2 * l1Index)) continue;
    const table = await loadL2(view, l1Index);
    if (table === null) continue;
    const present = (await loadL2(state, l1Index))?.words ?? new Uint32Array();
    const clusters = [table.offset / clusterSize];
    for (let index = 0; index < l2Entries; index++)
      if (!sameHost(table.words, present, index * entryWords))
        clusters.push(...hostClusters(state, table, index));
    yield { table, clusters };
  }
}

async function* clustersToRefer(
  state: Qcow2State,
  view: Qcow2State,
): AsyncGenerator<readonly number[]> {
  for await (const { clusters } of tablesToRefer(state, view)) yield clusters;
}

/**
 * Takes the copied flags from a table that only snapshots refer to, where they mean nothing: the disk will refer to it, and to what
 * the snapshot holds as well.
 */
async function clearFlags(state: Qcow2State, table: L2Table): Promise<void> {
  const words = disowned(table.words, state.geometry.entryWords);
  if (words.every((word, at) => word === table.words[at])) return;
  const bytes = bytesOf(words);
  await assertNoOverlap(state, table.offset, bytes.length, 'L2 table');
  await state.storage.write(hostOffset(table.offset), bytes, { what: 'L2 table' });
}

/** A copy of L1 or L2 words without copied flags. */
function disowned(words: Uint32Array, entryWords: number): Uint32Array {
  return words.map((word, at) => (at % entryWords === 0 ? (word & ~HIGH_COPIED) >>> 0 : word));
}
