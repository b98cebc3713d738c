import { type ByteLength, byteLength, type HostRange, hostOffset } from '@downfold/units';
import { allocate, ownTable, type Place, releaseOnFailure, touchEntries } from './allocate.ts';
import { imageError } from './corrupt.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { isExternal } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { LOW_ZERO, offsetLow, ownedHigh } from './structures.ts';
import { writerOf } from './writer.ts';

/**
 * What of a disk has its place in the file before it is written. `metadata`: clusters are mapped, their bytes a hole. `full`: they are
 * written as zeros. `falloc`: the host reserves them; as backends cannot ask it to, they are written, too.
 */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** Bytes that are written or reserved at a time. */
const STEP_BYTES = 4 << 20;

/**
 * Whether a new image can be preallocated.
 * @throws ImageError `IMAGE_UNSUPPORTED`: what is mapped hides the backing file, unless subclusters say that it does not
 */
export function assertCanPreallocate(
  label: string,
  mode: Preallocation,
  image: { readonly backed: boolean; readonly extendedL2: boolean },
): void {
  if (mode === 'off' || !image.backed || image.extendedL2) return;
  const feature = 'preallocation with a backing file and without extended L2 entries';
  throw imageError('IMAGE_UNSUPPORTED', label, feature, undefined, { feature });
}

/**
 * Maps every cluster that [from, to) touches and that has no place yet to fresh ones. The disk shows what it showed: zeros stay zeros,
 * subclusters unallocated, and what an entry leaves to the backing file as a whole has no place afterwards either. To be run in the
 * mutation queue.
 */
export async function preallocate(
  state: Qcow2State,
  from: number,
  to: number,
  mode: Preallocation,
): Promise<void> {
  const { clusterSize, l2Reach } = state.geometry;
  if (mode === 'off') return;
  // of a disk that grows
  const end = Math.max(state.header.size, to);
  for (let at = from - (from % clusterSize); at < to; ) {
    const l1Index = Math.floor(at / l2Reach);
    const table = await ownTable(state, l1Index);
    const index = (at - l1Index * l2Reach) / clusterSize;
    const count = unplaced(state, table, index, Math.ceil((to - at) / clusterSize));
    at +=
      Math.max(1, count === 0 ? 1 : await mapRun(state, table, index, count, mode, end)) *
      clusterSize;
    if (isMuchDirty(state)) await flushImage(state);
  }
}

/** Entries from `index` on that are to get a place: at most `most`, and as many as are reserved at a time. */
function unplaced(state: Qcow2State, table: L2Table, index: number, most: number): number {
  const { clusterSize, l2Entries } = state.geometry;
  const end = Math.min(l2Entries, index + Math.min(most, Math.max(1, STEP_BYTES / clusterSize)));
  let last = index;
  while (last < end && isUnplaced(state, table, last)) last++;
  return last - index;
}

function isUnplaced({ geometry, header }: Qcow2State, { words }: L2Table, index: number): boolean {
  const { entryWords, extendedL2 } = geometry;
  const [high, low] = [words[index * entryWords], words[index * entryWords + 1]];
  if (high !== 0) return false;
  // subclusters say themselves what is zero, and what lies below
  if (extendedL2 || header.backing === null) return low === 0 || low === LOW_ZERO;
  return low === LOW_ZERO;
}

/** Maps a run of entries, or the first of them; returns how many. */
async function mapRun(
  state: Qcow2State,
  table: L2Table,
  index: number,
  count: number,
  mode: Preallocation,
  end: number,
): Promise<number> {
  const { clusterSize, entryWords } = state.geometry;
  const place = await placeFor(state, table, index, count);
  if (isExternal(state)) await fill(state, place, mode, end);
  else await releaseOnFailure(state, place, () => fillOrDiscard(state, place, mode, end));
  writerOf(state).dataDirty = true;
  touchEntries(state, table, index, index + place.count);
  for (let done = 0; done < place.count; done++) {
    const host = place.offset + done * clusterSize;
    const at = (index + done) * entryWords;
    table.words[at] = ownedHigh(host);
    table.words[at + 1] = offsetLow(host) | ((table.words[at + 1] as number) & LOW_ZERO);
  }
  return place.count;
}

function placeFor(
  state: Qcow2State,
  table: L2Table,
  index: number,
  count: number,
): Promise<Place> | Place {
  if (!isExternal(state)) return allocate(state, count);
  const { l2Reach, clusterSize } = state.geometry;
  return { offset: table.index * l2Reach + index * clusterSize, count };
}

/** What fails for want of room leaves none for the tables either, unless it is given back at once. Nothing points there yet. */
async function fillOrDiscard(...[state, place, mode, end]: Parameters<typeof fill>): Promise<void> {
  try {
    await fill(state, place, mode, end);
  } catch (cause) {
    const length = byteLength(place.count * state.geometry.clusterSize);
    if (state.storage.supports.discard)
      await state.storage
        .discard({ offset: hostOffset(place.offset), length })
        .catch(() => undefined);
    throw cause;
  }
}

/** Clusters may have been used before: whatever the mode, they read as zeros. `end`: of the disk. */
async function fill(
  state: Qcow2State,
  place: Place,
  mode: Preallocation,
  end: number,
): Promise<void> {
  const whole = place.count * state.geometry.clusterSize;
  // a data file has nothing behind the disk
  const length = isExternal(state) ? Math.min(whole, end - place.offset) : whole;
  const range: HostRange = { offset: hostOffset(place.offset), length: length as ByteLength };
  if (!isExternal(state)) await assertNoOverlap(state, place.offset, length, null);
  if (mode === 'metadata') await state.data.writeZeroes(range, { what: 'data' });
  else await state.data.write(range.offset, new Uint8Array(length), { what: 'data' });
}
