import type { CowSource } from '@downfold/image';
import {
  alignUp,
  type ByteLength,
  byteLength,
  type GuestOffset,
  hostOffset,
} from '@downfold/units';
import { allocateAll, type Place, release, releaseOnFailure } from './allocate.ts';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { imageExtents } from './extents.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { patchHeader } from './header-sector.ts';
import { HARD_LIMITS } from './limits.ts';
import { assertNoOverlap, registerMetadata } from './overlap.ts';
import { type Preallocation, preallocate } from './preallocate.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, SECTOR_BYTES } from './structures.ts';
import { deallocateImage, zeroImage } from './unmap.ts';
import { bytesOf } from './words.ts';
import { flushFile, inTurn, writerOf } from './writer.ts';

/**
 * Grows the virtual disk (rule W12): a large enough L1 table is durable and in the header, and the new area reads as zeros and has what places it is to have,
 * before the header says the new size, which is rounded up to sectors. To be run in the mutation queue.
 */
export async function growImage(
  state: Qcow2State,
  virtualSize: number,
  fill: CowSource | null,
  preallocation: Preallocation = 'off',
): Promise<void> {
  const size = alignUp(virtualSize, SECTOR_BYTES);
  const old = state.header.size;
  assertCanGrow(state, size);
  if (size === old) return;
  await growL1(state, Math.ceil(size / state.geometry.l2Reach));
  await clearNewArea(state, old, size, fill);
  await cutRawData(state, size);
  // as when it was created: a raw data file is the disk, whoever writes to it
  const isRawData = state.header.dataFile?.raw === true;
  const mode = isRawData && preallocation === 'off' ? 'metadata' : preallocation;
  try {
    await preallocate(state, old, size, mode);
    await flushImage(state);
  } catch (cause) {
    // what failed is told; what cannot be given back leaks, or is mapped past the end, where growth clears it
    await giveBack(state, old, size).catch(() => undefined);
    throw cause;
  }
  await patchHeader(state, { size }, BARRIER.size);
}

/** Undoes what growth did in [old, size): most of the time the host has no room, and is to have it again. */
async function giveBack(state: Qcow2State, old: number, size: number): Promise<void> {
  const { clusterSize } = state.geometry;
  await deallocateImage(state, alignUp(old, clusterSize), alignUp(size, clusterSize));
  await cutRawData(state, old);
  await flushImage(state);
}

/** Gives a raw data file the length of the disk. */
async function cutRawData(state: Qcow2State, size: number): Promise<void> {
  if (state.header.dataFile?.raw !== true || !state.data.supports.resize) return;
  await state.data.setLength(byteLength(size));
  writerOf(state).dataDirty = true;
}

/** @throws ImageError `IMAGE_UNSUPPORTED` or `IMAGE_LIMIT` when the disk cannot have `size` bytes. */
export function assertCanGrow(state: Qcow2State, size: number): void {
  const { header, label } = state;
  const refuse = (feature: string): never => {
    throw imageError('IMAGE_UNSUPPORTED', label, feature, undefined, { feature });
  };
  if (size < header.size) refuse('shrinking the virtual disk');
  if (size > header.size && header.version === 2 && header.nbSnapshots > 0)
    refuse('growing a version 2 image with internal snapshots');
  if (size > state.limits.virtualSize)
    throw imageError('IMAGE_LIMIT', label, `virtual size ${size} is above the limit`, undefined, {
      limit: state.limits.virtualSize,
      found: size,
    });
  const l1Bytes = Math.ceil(size / state.geometry.l2Reach) * ENTRY_BYTES;
  if (l1Bytes > HARD_LIMITS.l1Table)
    throw imageError('IMAGE_LIMIT', label, `L1 table of ${l1Bytes} bytes would be above 32 MiB`);
}

/** Makes the L1 table at least `entries` long: in the clusters it has, or in new ones. */
async function growL1(state: Qcow2State, entries: number): Promise<void> {
  const { header, geometry } = state;
  if (entries <= header.l1Size) return;
  const clustersFor = (count: number): number =>
    Math.ceil((count * ENTRY_BYTES) / geometry.clusterSize);
  const present: Place = { offset: header.l1TableOffset, count: clustersFor(header.l1Size) };
  if (clustersFor(entries) <= present.count) return switchL1(state, entries, present);
  const place = await allocateAll(state, clustersFor(entries));
  await releaseOnFailure(state, place, () => switchL1(state, entries, place));
  if (present.count > 0) release(state, present.offset, present.count * geometry.clusterSize);
}

/** Writes the L1 table, made `entries` long, to `place`, and points the header there. */
async function switchL1(state: Qcow2State, entries: number, place: Place): Promise<void> {
  const { clusterSize } = state.geometry;
  for (let cluster = 0; cluster < place.count; cluster++)
    registerMetadata(state, place.offset + cluster * clusterSize, 'L1 table');
  // refcounts of the new clusters before the header points to them (W1), content before the header (W12)
  await flushImage(state);
  await inTurn(state, 'flush', async () => {
    const l1 = new Uint32Array(2 * entries);
    l1.set(state.l1);
    const bytes = bytesOf(l1);
    await assertNoOverlap(state, place.offset, bytes.length, 'L1 table');
    await state.storage.write(hostOffset(place.offset), bytes, { what: 'L1 table' });
    await flushFile(state, BARRIER.l1Content);
    await patchHeader(state, { l1Size: entries, l1TableOffset: place.offset }, BARRIER.l1Switch);
    state.l1 = l1;
  });
}

/** Makes [old, size) read as zeros: what is mapped there (the cut last cluster, remains of a shrink), and what lies below. */
export async function clearNewArea(
  state: Qcow2State,
  old: number,
  size: number,
  fill: CowSource | null,
): Promise<void> {
  const end = Math.min(size, (state.l1.length / 2) * state.geometry.l2Reach);
  const range = { offset: old as GuestOffset, length: (end - old) as ByteLength };
  for await (const batch of imageExtents(state, range)) {
    for (const { status, offset, length } of batch)
      if (status !== 'zero' && (status !== 'unallocated' || fill !== null))
        await zeroImage(state, offset, offset + length, { fill });
    if (isMuchDirty(state)) await flushImage(state);
  }
}
