import { setBits } from './bitmap-bits.ts';
import { assertBitmapSize, readBits } from './bitmap-data.ts';
import type { BitmapSet, LiveBitmap, StoredBitmap } from './bitmap-types.ts';
import { type BitmapDirectory, isConsistent } from './bitmaps.ts';
import type { Qcow2State } from './state.ts';
import { BITMAP } from './structures.ts';
import { writerOf } from './writer.ts';

/** The set as the file has it. */
export function bitmapSet(directory: BitmapDirectory | null, size: number): BitmapSet {
  return {
    list: (directory?.bitmaps ?? []).map(liveBitmap),
    directory: directory === null ? null : { offset: directory.offset, length: directory.length },
    size,
    inUse: false,
    paused: new Set(),
    abandoned: false,
  };
}

function liveBitmap(stored: StoredBitmap): LiveBitmap {
  return {
    name: stored.name,
    granularity: stored.granularity,
    enabled: (stored.flags & BITMAP.auto) !== 0,
    consistent: isConsistent(stored),
    bits: null,
    stored,
  };
}

/** The bits of a bitmap, read when they are not in memory. */
export async function bitsOf(state: Qcow2State, bitmap: LiveBitmap): Promise<Uint8Array> {
  const { size } = writerOf(state).bitmaps;
  if (bitmap.bits !== null) return bitmap.bits;
  const read = await readBits(state, bitmap.stored as StoredBitmap, size);
  // who loaded them meanwhile may have recorded a change since
  bitmap.bits ??= read;
  return bitmap.bits;
}

/** Reads the bits of the bitmaps that record, so that `record` needs nothing from the file. */
export async function loadRecording(state: Qcow2State): Promise<void> {
  for (const bitmap of writerOf(state).bitmaps.list)
    if (bitmap.enabled && bitmap.consistent) await bitsOf(state, bitmap);
}

/** Notes in all bitmaps that record that guest bytes [from, to) change. What is staged changes when it is published. */
export function record(state: Qcow2State, from: number, to: number): void {
  if (state.stagedOn !== null) return;
  const { list, paused } = writerOf(state).bitmaps;
  for (const bitmap of list) {
    if (!bitmap.enabled || bitmap.bits === null || paused.has(bitmap.name)) continue;
    const end = Math.ceil(to / bitmap.granularity);
    // a staging may be larger than the image it is of
    if (end > bitmap.bits.length * 8) {
      assertBitmapSize(state, to, bitmap.granularity);
      const longer = new Uint8Array(Math.ceil(end / 8));
      longer.set(bitmap.bits);
      bitmap.bits = longer;
    }
    setBits(bitmap.bits, Math.floor(from / bitmap.granularity), end);
  }
}
