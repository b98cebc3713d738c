import { alignUp, hostOffset } from '@downfold/units';
import { decoding, imageError } from './corrupt.ts';
import { findExtension } from './extensions.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import { AUTOCLEAR, bitmapEntry, bitmapsExtension, EXTENSION } from './structures.ts';

/** One persistent bitmap: where it lies, and what it is called. */
interface BitmapPlace {
  readonly tableOffset: number;
  /** Entries of the bitmap table. */
  readonly tableSize: number;
  /** Byte of the entry's flags in the file. */
  readonly flagsAt: number;
  readonly flags: number;
  readonly name: string;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
}

/** The bitmap directory: its place, and its entries. */
export interface BitmapDirectory {
  readonly offset: number;
  readonly length: number;
  readonly bitmaps: readonly BitmapPlace[];
}

/**
 * The directory of persistent bitmaps, or null: without the autoclear bit the extension means nothing.
 * @throws ImageError `IMAGE_LIMIT` above 256 bitmaps or 1 MiB.
 */
export async function readBitmaps(state: Qcow2State): Promise<BitmapDirectory | null> {
  const data = findExtension(state.header.area, EXTENSION.bitmaps)?.data;
  if (data === undefined || (state.header.autoclear[1] & AUTOCLEAR.bitmaps) === 0) return null;
  if (data.length !== bitmapsExtension.size)
    throw imageError('IMAGE_CORRUPT', state.label, `bitmaps extension of ${data.length} bytes`);
  const { count, directorySize, directoryOffset } = decoding(
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
  const bytes = new Uint8Array(directorySize);
  await state.storage.read(hostOffset(directoryOffset), bytes);
  const bitmaps: BitmapPlace[] = [];
  const text = new TextDecoder();
  for (let at = 0, index = 0; index < count; index++) {
    if (at + bitmapEntry.size > directorySize)
      throw imageError(
        'IMAGE_CORRUPT',
        state.label,
        'bitmap directory ends early',
        directoryOffset + at,
      );
    const entry = decoding(state.label, 'bitmap', directoryOffset + at, () =>
      bitmapEntry.decode(bytes, at),
    );
    const nameAt = at + bitmapEntry.size + entry.extraSize;
    bitmaps.push({
      tableOffset: entry.tableOffset,
      tableSize: entry.tableSize,
      flagsAt: directoryOffset + at + bitmapEntry.fields.flags.at,
      flags: entry.flags,
      name: text.decode(bytes.subarray(nameAt, nameAt + entry.nameSize)),
      granularity: 2 ** entry.granularityBits,
    });
    at = alignUp(at + bitmapEntry.size + entry.extraSize + entry.nameSize, 8);
  }
  return { offset: directoryOffset, length: directorySize, bitmaps };
}
