import type { CowSource, Image, StageOptions, Staging } from '@downfold/image';
import { alignUp, hostOffset } from '@downfold/units';
import { touchEntries } from './allocate.ts';
import { loadRecording } from './bitmap-set.ts';
import { assertOwnData } from './data-file.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import type { L2Table } from './l2-table.ts';
import { reclaimLeaks } from './reclaim.ts';
import { assertCanGrow, clearNewArea } from './resize.ts';
import { asStored, sameHost } from './stage-entries.ts';
import { isGone, isPublished, noStaging, placeOf, type StagedPlace } from './stage-place.ts';
import { orDiscarded } from './stage-publish.ts';
import { closeStaged, openStaged } from './stage-state.ts';
import { planUndo } from './stage-undo.ts';
import { EndedStaging, Qcow2Staging } from './staging.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, SECTOR_BYTES } from './structures.ts';
import { loadL2 } from './tables.ts';
import { bytesOf, wordsOf } from './words.ts';

/**
 * Begins a staging of the image, or goes on with one: a second L1 table, at first a copy of the image's, then with fresh L2 tables
 * and data clusters for all that is changed. An L2 table or data cluster is the staging's own when the image's entry at the same
 * place refers to another one; what it has from the image is never written in place, and given back after the publish at the
 * earliest. Durable when it resolves; the virtual size is rounded up to sectors. `imageOver` makes members for a mapping. To be run
 * in the mutation queue, where there is no other staging.
 */
export async function stageImage(
  image: Qcow2State,
  options: StageOptions,
  imageOver: (state: Qcow2State) => Image,
): Promise<Staging> {
  const { from, keepUndo } = options;
  const virtualSize = alignUp(options.virtualSize, SECTOR_BYTES);
  if (from === null) {
    // bitmaps that cannot be read cannot be kept true by the publish: known before anything is staged
    await loadRecording(image);
    const staged = await beginStaging(image, virtualSize, options.fill);
    if (keepUndo) await orDiscarded(staged, () => planUndo(staged, keepUndo));
    return new Qcow2Staging(staged, imageOver(staged));
  }
  const place = placeOf(image, from);
  if (isPublished(image, place)) return new EndedStaging(image, from, imageOver(image));
  if (place.virtualSize !== virtualSize)
    throw noStaging(image, `the staging was begun with a virtual size of ${place.virtualSize}`);
  if (await isGone(image, place)) return new EndedStaging(image, from, null);
  await reclaimLeaks(image, { ...options, keep: from });
  const staged = await goOn(image, place);
  return new Qcow2Staging(staged, imageOver(staged));
}

/** Begins a staging that shows what the image shows; new area of a larger disk is zeros. Durable when it resolves. */
export async function beginStaging(
  image: Qcow2State,
  virtualSize: number,
  fill: CowSource | null,
): Promise<Qcow2State> {
  assertOwnData(image, 'a second mapping');
  assertCanGrow(image, virtualSize);
  // what the staging inherits is what the file holds
  await flushImage(image);
  const { header, geometry } = image;
  const l1Size = Math.max(1, header.l1Size, Math.ceil(virtualSize / geometry.l2Reach));
  const l1 = new Uint32Array(2 * l1Size);
  l1.set(image.l1);
  const l1Offset = await writeFresh(image, 'L1 table', bytesOf(l1));
  const staged = openStaged(image, { l1Offset, l1Size, virtualSize }, l1);
  return closedOnFailure(staged, async () => {
    await clearNewArea(staged, header.size, virtualSize, fill);
    await flushImage(staged);
  });
}

async function goOn(image: Qcow2State, place: StagedPlace): Promise<Qcow2State> {
  const bytes = new Uint8Array(place.l1Size * ENTRY_BYTES);
  await image.storage.read(hostOffset(place.l1Offset), bytes);
  const staged = openStaged(image, place, wordsOf(bytes));
  return closedOnFailure(staged, () => restoreFlags(staged, image));
}

async function closedOnFailure(staged: Qcow2State, work: () => Promise<void>): Promise<Qcow2State> {
  try {
    await work();
  } catch (cause) {
    closeStaged(staged);
    throw cause;
  }
  return staged;
}

/**
 * Tables of a staging whose publish with an undo snapshot was cut short may lack copied flags: they are written anew, for there is
 * no such snapshot now.
 */
async function restoreFlags(staged: Qcow2State, image: Qcow2State): Promise<void> {
  const { l2Entries } = staged.geometry;
  for (let index = 0; 2 * index < staged.l1.length; index++) {
    if (sameHost(staged.l1, image.l1, 2 * index)) continue;
    const table = await loadL2(staged, index);
    if (table === null || (await isAsStored(staged, table))) continue;
    touchEntries(staged, table, 0, l2Entries);
    if (isMuchDirty(staged)) await flushImage(staged);
  }
}

async function isAsStored(staged: Qcow2State, table: L2Table): Promise<boolean> {
  const { clusterSize, entryWords } = staged.geometry;
  const found = new Uint8Array(clusterSize);
  await staged.storage.read(hostOffset(table.offset), found);
  return Buffer.compare(found, bytesOf(asStored(table.words, table.lower, entryWords))) === 0;
}
