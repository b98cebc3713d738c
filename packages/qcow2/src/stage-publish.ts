import { release } from './allocate.ts';
import { BARRIER } from './barriers.ts';
import { flushImage } from './flush.ts';
import { patchHeader } from './header-sector.ts';
import { MetadataCache } from './metadata-cache.ts';
import { reclaimLeaks } from './reclaim.ts';
import { recordStaged } from './stage-bitmaps.ts';
import { asStored, sameHost } from './stage-entries.ts';
import { assertStagedOpen, closeStaged, imageOf } from './stage-state.ts';
import { planUndo, type UndoSnapshot, writeUndo } from './stage-undo.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES } from './structures.ts';
import { loadL2 } from './tables.ts';
import { letGo } from './write.ts';
import { writerOf } from './writer.ts';

/** Runs of clusters to be released at a time. */
const MOST_RELEASES = 65_536;

/**
 * Makes a staging the image's mapping, by one write of the header's first sector after all that it points to is durable (W11). Then
 * what only the old mapping held is released (W5); with `keepUndo` an internal snapshot holds it. To be run in the mutation queue.
 */
export async function publishStaged(
  staged: Qcow2State,
  keepUndo: UndoSnapshot | null,
): Promise<void> {
  assertStagedOpen(staged);
  const image = imageOf(staged);
  const undo = keepUndo === null ? null : await planUndo(staged, keepUndo);
  await flushImage(staged);
  await recordStaged(staged);
  const snapshots = undo === null ? {} : await writeUndo(staged, undo);
  const old = { ...image };
  const { l1TableOffset, l1Size, size } = staged.header;
  await patchHeader(image, { l1TableOffset, l1Size, size, ...snapshots }, BARRIER.publish);
  image.l1 = asStored(staged.l1, old.l1, 2);
  // a new one: tables of a staging lack copied flags in memory, and who is still loading an old table puts it into the old cache
  image.l2 = new MetadataCache(image.geometry.clusterSize);
  closeStaged(staged);
  if (undo === null) await releaseMapping(image, old);
  else if (undo.tableBytes > 0) release(image, old.header.snapshotsOffset, undo.tableBytes);
  await flushImage(image);
}

/** Releases what `old`, an earlier mapping of the image, refers to and the present one does not, and its L1 table. */
export async function releaseMapping(image: Qcow2State, old: Qcow2State): Promise<void> {
  const { clusterSize, l2Entries, entryWords } = image.geometry;
  const { l1TableOffset, l1Size } = old.header;
  if (l1Size > 0) release(image, l1TableOffset, l1Size * ENTRY_BYTES);
  for (let l1Index = 0; l1Index < l1Size; l1Index++) {
    if (sameHost(old.l1, image.l1, 2 * l1Index)) continue;
    const before = await loadL2(old, l1Index);
    if (before === null) continue;
    const after = (await loadL2(image, l1Index))?.words ?? new Uint32Array();
    for (let index = 0; index < l2Entries; index++)
      if (!sameHost(before.words, after, index * entryWords)) letGo(image, before, index);
    release(image, before.offset, clusterSize);
    if (writerOf(image).releases.length > MOST_RELEASES) await flushImage(image);
  }
}

/** Does `work` with a staging, which is discarded when that was refused; what failed while it was written stays as it is. */
export async function orDiscarded(staged: Qcow2State, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (imageOf(staged).writer?.failure === null && !staged.closed) await discardStaged(staged);
    throw cause;
  }
}

/**
 * Gives back all that a staging took. Its L1 table goes first, so that a token is known to mean nothing before anything under it is
 * gone. To be run in the mutation queue.
 */
export async function discardStaged(staged: Qcow2State): Promise<void> {
  assertStagedOpen(staged);
  const image = imageOf(staged);
  const { l1TableOffset, l1Size } = staged.header;
  closeStaged(staged);
  // what the staging let go may still be in its tables as the file has them: it goes with the rest
  writerOf(image).releases = [];
  release(image, l1TableOffset, l1Size * ENTRY_BYTES);
  await flushImage(image);
  await reclaimLeaks(image);
}
