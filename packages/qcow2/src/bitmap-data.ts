import { byteLength, type HostRange, hostOffset } from '@downfold/units';
import { allocate, allocateAll, releaseOnFailure } from './allocate.ts';
import { bitmapBytes } from './bitmap-bits.ts';
import type { StoredBitmap } from './bitmap-types.ts';
import { corrupt, imageError } from './corrupt.ts';
import { SAFE_LIMITS } from './limits.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { bitmapReserved, ENTRY_BYTES, entryOffset, LOW_ALL_ONES, offsetLow } from './structures.ts';
import { assertClusterInFile } from './tables.ts';
import { bytesOf, wordsOf } from './words.ts';
import { writerOf } from './writer.ts';

/** Entries of the table of a bitmap, one for each cluster of bits. */
function tableEntries(state: Qcow2State, size: number, granularity: number): number {
  return Math.ceil(bitmapBytes(size, granularity) / state.geometry.clusterSize);
}

/** Whether the table of a bitmap is as long as it must be for a disk of `size` bytes. */
export function fitsDisk(state: Qcow2State, bitmap: StoredBitmap, size: number): boolean {
  return bitmap.tableSize === tableEntries(state, size, bitmap.granularity);
}

/** @throws ImageError `IMAGE_LIMIT` when the bits of a disk of `size` bytes take too much memory. */
export function assertBitmapSize(state: Qcow2State, size: number, granularity: number): void {
  const bytes = bitmapBytes(size, granularity);
  if (bytes > state.limits.metadataBytes)
    throw imageError(
      'IMAGE_LIMIT',
      state.label,
      `bitmap of ${bytes} bytes is above the memory limit`,
    );
}

/** The table of a bitmap as words, two an entry. @throws ImageError `IMAGE_CORRUPT`. */
async function readTable(state: Qcow2State, bitmap: StoredBitmap): Promise<Uint32Array> {
  const { tableOffset, tableSize } = bitmap;
  const length = tableSize * ENTRY_BYTES;
  if (length > SAFE_LIMITS.bitmapTable)
    throw imageError('IMAGE_LIMIT', state.label, `bitmap table of ${length} bytes`, tableOffset);
  const bytes = new Uint8Array(length);
  assertClusterInFile(state, tableOffset, Math.max(1, length), 'bitmap table', bitmap.flagsAt);
  await state.storage.read(hostOffset(tableOffset), bytes);
  return wordsOf(bytes);
}

/** The bits of a bitmap, which was saved for a disk of `size` bytes. @throws ImageError `IMAGE_CORRUPT` or `IMAGE_LIMIT`. */
export async function readBits(
  state: Qcow2State,
  bitmap: StoredBitmap,
  size: number,
): Promise<Uint8Array> {
  const { clusterSize } = state.geometry;
  assertBitmapSize(state, size, bitmap.granularity);
  if (!fitsDisk(state, bitmap, size))
    throw corrupt(
      state.label,
      `bitmap ${bitmap.name} is not as long as the disk`,
      bitmap.tableOffset,
    );
  const bits = new Uint8Array(bitmapBytes(size, bitmap.granularity));
  const table = await readTable(state, bitmap);
  for (let index = 0; index < bitmap.tableSize; index++) {
    const [high, low] = [table[2 * index] as number, table[2 * index + 1] as number];
    const at = bitmap.tableOffset + index * ENTRY_BYTES;
    if (bitmapReserved(high, low))
      throw corrupt(state.label, 'reserved bits are set in a bitmap table entry', at);
    const part = bits.subarray(index * clusterSize, (index + 1) * clusterSize);
    const offset = entryOffset(high, low);
    if (offset === 0) part.fill(low & LOW_ALL_ONES ? 0xff : 0);
    else {
      assertClusterInFile(state, offset, clusterSize, 'bitmap data', at);
      await state.storage.read(hostOffset(offset), part);
    }
  }
  return bits;
}

/** Where a bitmap was written. */
export type BitmapPlace = Pick<StoredBitmap, 'tableOffset' | 'tableSize'>;

/** Writes bits and their table to fresh clusters, to be flushed; clusters of zeros take none. */
export async function writeBits(state: Qcow2State, bits: Uint8Array): Promise<BitmapPlace> {
  const { clusterSize } = state.geometry;
  const tableSize = Math.ceil(bits.length / clusterSize);
  const table = new Uint32Array(2 * tableSize);
  for (let index = 0; index < tableSize; index++) {
    const part = bits.subarray(index * clusterSize, (index + 1) * clusterSize);
    if (part.every((byte) => byte === 0)) continue;
    const { offset } = await allocate(state, 1);
    const whole = new Uint8Array(clusterSize);
    whole.set(part);
    await writeTo(state, offset, whole);
    table[2 * index] = Math.floor(offset / 2 ** 32);
    table[2 * index + 1] = offsetLow(offset);
  }
  const bytes = bytesOf(table);
  const place = await allocateAll(state, Math.max(1, Math.ceil(bytes.length / clusterSize)));
  return releaseOnFailure(state, place, async () => {
    if (bytes.length > 0) await writeTo(state, place.offset, bytes);
    return { tableOffset: place.offset, tableSize };
  });
}

async function writeTo(state: Qcow2State, offset: number, bytes: Uint8Array): Promise<void> {
  await assertNoOverlap(state, offset, bytes.length, null);
  await state.storage.write(hostOffset(offset), bytes, { what: 'bitmap' });
  // the next flush has it to make durable, even when one that is under way has sealed the refcounts already
  writerOf(state).dataDirty = true;
}

/** What a bitmap takes in the file: to be let go once nothing refers to it. @throws ImageError `IMAGE_CORRUPT`. */
export async function placesOf(
  state: Qcow2State,
  bitmap: StoredBitmap,
): Promise<readonly HostRange[]> {
  const { clusterSize } = state.geometry;
  const table = await readTable(state, bitmap);
  const places: HostRange[] = [];
  for (let index = 0; index < table.length; index += 2) {
    const offset = entryOffset(table[index] as number, table[index + 1] as number);
    if (offset === 0) continue;
    assertClusterInFile(state, offset, clusterSize, 'bitmap data', bitmap.tableOffset);
    await assertNoOverlap(state, offset, clusterSize, null);
    places.push({ offset: hostOffset(offset), length: byteLength(clusterSize) });
  }
  const tableLength = table.length * 4;
  await assertNoOverlap(state, bitmap.tableOffset, Math.max(1, tableLength), null);
  if (tableLength > 0)
    places.push({ offset: hostOffset(bitmap.tableOffset), length: byteLength(tableLength) });
  return places;
}
