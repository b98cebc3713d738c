import { alignUp, type HostRange } from '@downfold/units';
import { release } from './allocate.ts';
import { BARRIER } from './barriers.ts';
import { bitsFor } from './bitmap-bits.ts';
import { type BitmapPlace, fitsDisk, placesOf, writeBits } from './bitmap-data.ts';
import { bitmapSet, bitsOf } from './bitmap-set.ts';
import type { LiveBitmap, StoredBitmap } from './bitmap-types.ts';
import { assertBitmapsExtension, readBitmaps } from './bitmaps.ts';
import { findExtension } from './extensions.ts';
import { flushImage } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import {
  appendExtension,
  extensionDataAt,
  removeExtension,
  replaceExtension,
} from './header-extension.ts';
import { patchHeader } from './header-sector.ts';
import { closeStaged } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import {
  AUTOCLEAR,
  BITMAP,
  BITMAP_ALIGNMENT,
  BITMAP_TYPE,
  bitmapEntry,
  bitmapsExtension,
  EXTENSION,
  SECTOR_BYTES,
} from './structures.ts';
import { inTurn, writerOf } from './writer.ts';

/**
 * Saves the persistent bitmaps (rule W9): what changed of their bits, then a directory in which they are not in use, all of it in fresh
 * clusters and durable; then one write of the header points there, and only then the old ones are released. A crash leaves the
 * bitmaps as they were, in use when the disk was changed, and leaks. To be run in the mutation queue.
 */
export async function saveBitmaps(state: Qcow2State): Promise<void> {
  const { bitmaps } = writerOf(state);
  const { list, directory: old } = bitmaps;
  if (list.length > 0) await makePlace(state);
  // looked up while the header still points there: what cannot be read is left as it is
  const stale: HostRange[] = [];
  for (const stored of await replaced(state, list)) stale.push(...(await placesOf(state, stored)));
  const entries: Uint8Array[] = [];
  for (const bitmap of list)
    entries.push(encodeEntry(bitmap, await placeOf(state, bitmap), bitmaps.inUse));
  const directory = await writeDirectory(state, entries);
  await flushImage(state);
  await switchDirectory(state, entries.length, directory);
  if (old !== null) release(state, old.offset, old.length);
  for (const { offset, length } of stale) release(state, offset, length);
  await flushImage(state);
  const { paused } = bitmaps;
  Object.assign(bitmaps, bitmapSet(await readBitmaps(state), state.header.size), { paused });
}

/**
 * Saves the bitmaps of an image that is being closed, or is about to be, when the disk was changed; after a failure nobody knows what changed, and they
 * stay in use. What a staging did since its last flush goes.
 */
export async function closeBitmaps(state: Qcow2State): Promise<void> {
  const writer = state.writer;
  if (writer === null || writer.failure !== null) return;
  if (!writer.bitmaps.inUse || writer.bitmaps.abandoned) return;
  if (state.staged !== null) {
    closeStaged(state.staged);
    // its tables in the file may still refer to them
    writer.releases = [];
  }
  await saveBitmaps(state);
}

/** Where the bits of a bitmap lie: where they were when they are the same, or where they were written to now. */
async function placeOf(state: Qcow2State, bitmap: LiveBitmap): Promise<BitmapPlace> {
  if (bitmap.stored !== null && isAsStored(state, bitmap)) return bitmap.stored;
  const bits = await bitsOf(state, bitmap);
  return writeBits(state, bitsFor(bits, state.header.size, bitmap.granularity));
}

/** Whether the bits in the file are the bitmap's, for the disk as it is now. What is inconsistent stays as it lies. */
function isAsStored(state: Qcow2State, { stored, bits, consistent }: LiveBitmap): boolean {
  if (!consistent) return true;
  return stored !== null && bits === null && fitsDisk(state, stored, state.header.size);
}

/** The bitmaps in the file whose clusters nothing will refer to. */
async function replaced(
  state: Qcow2State,
  list: readonly LiveBitmap[],
): Promise<readonly StoredBitmap[]> {
  const kept = list.filter((bitmap) => isAsStored(state, bitmap));
  const tables = new Set(kept.map(({ stored }) => stored?.tableOffset));
  const present = (await readBitmaps(state))?.bitmaps ?? [];
  return present.filter(({ tableOffset }) => !tables.has(tableOffset));
}

/** `inUse`: what the file says of all of them now; who is inconsistent stays so. */
function encodeEntry(
  bitmap: LiveBitmap,
  { tableOffset, tableSize }: BitmapPlace,
  inUse: boolean,
): Uint8Array {
  const name = new TextEncoder().encode(bitmap.name);
  const extra = bitmap.stored?.extra ?? new Uint8Array();
  const old = bitmap.stored?.flags ?? 0;
  const flags =
    (bitmap.enabled ? BITMAP.auto : 0) |
    (old & BITMAP.extraCompatible) |
    (!bitmap.consistent && inUse ? BITMAP.inUse : 0) |
    (old & BITMAP.inUse);
  const namesAt = bitmapEntry.size + extra.length;
  const entry = new Uint8Array(alignUp(namesAt + name.length, BITMAP_ALIGNMENT));
  bitmapEntry.encode(
    {
      tableOffset,
      tableSize,
      flags,
      type: BITMAP_TYPE,
      granularityBits: Math.log2(bitmap.granularity),
      nameSize: name.length,
      extraSize: extra.length,
    },
    entry,
  );
  entry.set(extra, bitmapEntry.size);
  entry.set(name, namesAt);
  return entry;
}

interface Directory {
  readonly offset: number;
  readonly length: number;
}

async function writeDirectory(
  state: Qcow2State,
  entries: readonly Uint8Array[],
): Promise<Directory | null> {
  if (entries.length === 0) return null;
  const bytes = Buffer.concat(entries);
  return { offset: await writeFresh(state, 'bitmap directory', bytes), length: bytes.length };
}

/** Makes sure that the header has a place for the directory: an extension that means nothing while the autoclear bit is off. */
async function makePlace(state: Qcow2State): Promise<void> {
  const present = findExtension(state.header.area, EXTENSION.bitmaps);
  if (present !== undefined) return assertBitmapsExtension(state, present.data);
  await claim(state, false);
  const nothing = new Uint8Array(bitmapsExtension.size);
  await inTurn(state, 'header', () => appendExtension(state, EXTENSION.bitmaps, nothing));
}

/** Points the header to a directory, or to none. Where that is not one write of one sector, the autoclear bit is off meanwhile. */
async function switchDirectory(
  state: Qcow2State,
  count: number,
  directory: Directory | null,
): Promise<void> {
  if (directory === null) {
    await claim(state, false);
    await inTurn(state, 'header', () => removeExtension(state, EXTENSION.bitmaps));
    return;
  }
  const data = new Uint8Array(bitmapsExtension.size);
  const { offset: directoryOffset, length: directorySize } = directory;
  bitmapsExtension.encode({ count, reserved: 0, directorySize, directoryOffset }, data);
  const dataAt = extensionDataAt(state, EXTENSION.bitmaps);
  if ((dataAt % SECTOR_BYTES) + data.length > SECTOR_BYTES) await claim(state, false);
  await inTurn(state, 'header', () => replaceExtension(state, EXTENSION.bitmaps, data));
  await claim(state, true);
}

/** Sets or clears the autoclear bit that says that the bitmaps extension is true. */
async function claim(state: Qcow2State, isTrue: boolean): Promise<void> {
  const [high, low] = state.header.autoclear;
  const wanted = (isTrue ? low | AUTOCLEAR.bitmaps : low & ~AUTOCLEAR.bitmaps) >>> 0;
  if (wanted !== low)
    await patchHeader(state, { autoclear: [high, wanted] }, BARRIER.bitmapsClaimed);
}
