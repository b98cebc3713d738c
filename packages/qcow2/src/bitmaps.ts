import { alignUp, hostOffset } from '@downfold/units';
import type { StoredBitmap } from './bitmap-types.ts';
import { corrupt, decoding, imageError } from './corrupt.ts';
import { findExtension } from './extensions.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import {
  AUTOCLEAR,
  BITMAP,
  BITMAP_ALIGNMENT,
  BITMAP_KNOWN,
  BITMAP_TYPE,
  type BitmapEntry,
  bitmapEntry,
  bitmapsExtension,
  EXTENSION,
} from './structures.ts';

/** The bitmap directory: its place, and its entries. */
export interface BitmapDirectory {
  readonly offset: number;
  readonly length: number;
  readonly bitmaps: readonly StoredBitmap[];
}

/** Whether a bitmap says what changed: it was saved, and nothing that Downfold does not know belongs to it. */
export function isConsistent({ flags, extra }: StoredBitmap): boolean {
  return (
    (flags & BITMAP.inUse) === 0 && (extra.length === 0 || (flags & BITMAP.extraCompatible) !== 0)
  );
}

/**
 * The directory of persistent bitmaps, or null: without the autoclear bit the extension means nothing.
 * @throws ImageError `IMAGE_LIMIT` above 256 bitmaps or 1 MiB; `IMAGE_CORRUPT` for entries that QEMU refuses to load.
 */
export async function readBitmaps(state: Qcow2State): Promise<BitmapDirectory | null> {
  const data = findExtension(state.header.area, EXTENSION.bitmaps)?.data;
  if (data === undefined || (state.header.autoclear[1] & AUTOCLEAR.bitmaps) === 0) return null;
  assertBitmapsExtension(state, data);
  const { count, reserved, directorySize, directoryOffset } = decoding(
    state.label,
    'bitmaps extension',
    0,
    () => bitmapsExtension.decode(data),
  );
  if (count > SAFE_LIMITS.bitmaps || directorySize > SAFE_LIMITS.bitmapDirectory)
    throw imageError(
      'IMAGE_LIMIT',
      state.label,
      `${count} bitmaps in ${directorySize} bytes are above the limit`,
      directoryOffset,
    );
  if (count === 0 || reserved !== 0)
    throw corrupt(state.label, `bitmaps extension with ${count} bitmaps, reserved ${reserved}`);
  const bytes = new Uint8Array(directorySize);
  await state.storage.read(hostOffset(directoryOffset), bytes);
  const bitmaps: StoredBitmap[] = [];
  let at = 0;
  while (bitmaps.length < count) {
    const { bitmap, length } = readEntry(state, bytes, at, directoryOffset);
    if (bitmaps.some(({ name }) => name === bitmap.name))
      throw corrupt(state.label, `two bitmaps are called ${bitmap.name}`, directoryOffset + at);
    bitmaps.push(bitmap);
    at += length;
  }
  if (at < directorySize)
    throw corrupt(
      state.label,
      `bitmap directory of ${directorySize} bytes for ${count} bitmaps`,
      directoryOffset + at,
    );
  return { offset: directoryOffset, length: directorySize, bitmaps };
}

/** @throws ImageError `IMAGE_CORRUPT` for an extension that is not as long as it must be */
export function assertBitmapsExtension(state: Qcow2State, data: Uint8Array): void {
  if (data.length !== bitmapsExtension.size)
    throw corrupt(state.label, `bitmaps extension of ${data.length} bytes`);
}

function readEntry(
  state: Qcow2State,
  bytes: Uint8Array,
  at: number,
  directoryOffset: number,
): { readonly bitmap: StoredBitmap; readonly length: number } {
  const here = directoryOffset + at;
  const early = (): Error => corrupt(state.label, 'bitmap directory ends early', here);
  if (at + bitmapEntry.size > bytes.length) throw early();
  const entry = decoding(state.label, 'bitmap', here, () => bitmapEntry.decode(bytes, at));
  const extraAt = at + bitmapEntry.size;
  const nameAt = extraAt + entry.extraSize;
  const end = nameAt + entry.nameSize;
  // the padding of the last one belongs to it, as to QEMU
  const length = alignUp(end - at, BITMAP_ALIGNMENT);
  if (at + length > bytes.length) throw early();
  assertEntry(state, entry, here);
  const bitmap = {
    tableOffset: entry.tableOffset,
    tableSize: entry.tableSize,
    flagsAt: here + bitmapEntry.fields.flags.at,
    flags: entry.flags,
    name: new TextDecoder().decode(bytes.subarray(nameAt, end)),
    granularity: 2 ** entry.granularityBits,
    extra: bytes.slice(extraAt, nameAt),
  };
  return { bitmap, length };
}

/** Granularities from 512 bytes to 2 GiB, as bits. */
export const GRANULARITY_BITS: { readonly least: number; readonly most: number } = {
  least: 9,
  most: 31,
};
/** Bytes of the longest name of a bitmap. */
export const LONGEST_BITMAP_NAME = 1023;

function assertEntry(state: Qcow2State, entry: BitmapEntry, at: number): void {
  const { type, granularityBits, nameSize, flags, tableOffset } = entry;
  if (type !== BITMAP_TYPE) throw corrupt(state.label, `bitmap of type ${type}`, at);
  if (granularityBits < GRANULARITY_BITS.least || granularityBits > GRANULARITY_BITS.most)
    throw corrupt(state.label, `bitmap with a granularity of ${granularityBits} bits`, at);
  if (nameSize === 0 || nameSize > LONGEST_BITMAP_NAME)
    throw corrupt(state.label, `bitmap with a name of ${nameSize} bytes`, at);
  if ((flags & ~BITMAP_KNOWN) !== 0) throw corrupt(state.label, 'bitmap with unknown flags', at);
  if (tableOffset === 0 || tableOffset % state.geometry.clusterSize !== 0)
    throw corrupt(state.label, `bitmap table at ${tableOffset} is not on a cluster`, at);
}
