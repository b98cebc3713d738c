import type { CowSource } from '@downfold/image';
import { hostOffset } from '@downfold/units';
import {
  allocate,
  ownTable,
  type Place,
  release,
  releaseOnFailure,
  touchEntries,
} from './allocate.ts';
import { compressedPlace } from './compressed.ts';
import { entryAt, hasHost, hostOf, hostPlace, isExternal } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import { assertNoOverlap } from './overlap.ts';
import { readImage } from './read.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COMPRESSED, HIGH_COPIED, LOW_ZERO, offsetLow, ownedHigh } from './structures.ts';
import { assertInFile } from './tables.ts';
import { writerOf } from './writer.ts';

/** Bytes written as one run of clusters at most. */
const RUN_BYTES = 16 << 20;

/** How a cluster is written: in the place it has, to a fresh one, or to a fresh one that must hold all of it. */
type Way = 'in place' | 'in place, zero' | 'fresh' | 'whole';

/** A run of clusters of one table that are written the same way, contiguous in the file when they have a place. */
export interface Run {
  readonly table: L2Table;
  readonly index: number;
  readonly count: number;
  readonly way: Way;
  /** Byte of the first cluster in the file; 0: has none. */
  readonly host: number;
}

/**
 * Writes guest bytes at `offset`. Data goes to its place at once; tables change in memory only, after the data was
 * written, so that a flush at any moment finds no entry whose data it does not cover. To be run in the mutation queue.
 */
export async function writeImage(
  state: Qcow2State,
  offset: number,
  bytes: Uint8Array,
  fill: CowSource | null,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const end = offset + bytes.length;
  for (let at = offset; at < end; ) {
    const run = await nextRun(state, at, end);
    const start = at - (at % clusterSize);
    const whole = wholeEnd(state, run, at, end);
    if (whole <= at) {
      const part = Math.min(end, start + clusterSize);
      await writeEdge(
        state,
        { ...run, count: 1 },
        at,
        part,
        bytes.subarray(at - offset, part - offset),
        fill,
      );
      at = part;
      continue;
    }
    const done = await writeRun(
      state,
      run,
      start,
      at,
      whole,
      bytes.subarray(at - offset, whole - offset),
    );
    at = done;
  }
}

/** The run that starts with the cluster of guest byte `at`, ending with the table, the range or what differs. */
async function nextRun(state: Qcow2State, at: number, end: number): Promise<Run> {
  return runIn(state, await ownTable(state, Math.floor(at / state.geometry.l2Reach)), at, end);
}

/** As `nextRun`, in the table of `at`. */
export function runIn(state: Qcow2State, table: L2Table, at: number, end: number): Run {
  const { clusterSize, l2Reach, l2Entries, entryWords } = state.geometry;
  const base = table.index * l2Reach;
  const index = Math.floor((at - base) / clusterSize);
  const most = Math.min(
    l2Entries - index,
    Math.ceil((end - base) / clusterSize) - index,
    Math.max(1, RUN_BYTES / clusterSize),
  );
  const way = wayOf(state, table, index);
  const placed = way === 'in place' || way === 'in place, zero';
  const host = placed ? hostOf(state, table, index) : 0;
  let count = 1;
  while (
    count < most &&
    wayOf(state, table, index + count) === way &&
    (!placed || hostOf(state, table, index + count) === host + count * clusterSize)
  )
    count++;
  if (way === 'in place' && !isExternal(state))
    assertInFile(
      state,
      host,
      count * clusterSize,
      'data cluster',
      entryAt(table, index * entryWords),
    );
  return { table, index, count, way, host };
}

/** @throws ImageError `IMAGE_CORRUPT` for an entry that breaks the format's rules: `letGo` will not. */
function wayOf(state: Qcow2State, table: L2Table, index: number): Way {
  const at = index * state.geometry.entryWords;
  const high = table.words[at] as number;
  const low = table.words[at + 1] as number;
  if (high === 0 && low === 0) return 'fresh';
  if (high & HIGH_COMPRESSED) {
    compressedPlace(state, high, low);
    return 'whole';
  }
  if (!hasHost(state, high, hostOf(state, table, index))) return 'fresh';
  if ((high & HIGH_COPIED) === 0) return 'whole';
  return low & LOW_ZERO ? 'in place, zero' : 'in place';
}

/** Writes whole units [from, to) of a run, without reading anything. Returns where it stopped: a fresh run may be shorter. */
async function writeRun(
  state: Qcow2State,
  run: Run,
  start: number,
  from: number,
  to: number,
  bytes: Uint8Array,
): Promise<number> {
  const { clusterSize } = state.geometry;
  const count = Math.ceil((to - start) / clusterSize);
  return withPlace(state, run, count, start, async (place) => {
    const end = Math.min(to, start + place.count * clusterSize);
    await put(state, place.offset + (from - start), bytes.subarray(0, end - from));
    map(state, { ...run, count: place.count }, place.offset, start, from, end);
    return end;
  });
}

/** Where the whole units end that can be written from `at` on in a run, without reading anything; not past `at`: a unit is cut. */
export function wholeEnd(state: Qcow2State, run: Run, at: number, end: number): number {
  const { clusterSize, unitSize } = state.geometry;
  const unit = run.way === 'whole' ? clusterSize : unitSize;
  if (at % unit !== 0) return at;
  const stop = Math.min(end, at - (at % clusterSize) + run.count * clusterSize);
  return stop - (stop % unit);
}

/** Writes [from, to) of one cluster, completing the units it cuts with what they showed before. */
async function writeEdge(
  state: Qcow2State,
  run: Run,
  from: number,
  to: number,
  bytes: Uint8Array,
  fill: CowSource | null,
): Promise<void> {
  const { clusterSize, unitSize } = state.geometry;
  const start = from - (from % clusterSize);
  const unit = run.way === 'whole' ? clusterSize : unitSize;
  const low = unitHasData(state, run, from - start) ? from : from - (from % unit);
  const high = unitHasData(state, run, to - 1 - start) ? to : Math.ceil(to / unit) * unit;
  const buffer = new Uint8Array(high - low);
  await readOld(state, low, buffer.subarray(0, from - low), fill);
  await readOld(state, to, buffer.subarray(to - low), fill);
  buffer.set(bytes, from - low);
  await withPlace(state, run, 1, start, async (place) => {
    await put(state, place.offset + (low - start), buffer);
    map(state, run, place.offset, start, low, high);
  });
}

/** Whether the unit at byte `inside` of a cluster has data in the place that will be written, so that its other bytes stay. */
function unitHasData(state: Qcow2State, run: Run, inside: number): boolean {
  if (run.way !== 'in place') return false;
  if (!state.geometry.extendedL2) return true;
  const allocated = run.table.words[run.index * 4 + 3] as number;
  return ((allocated >>> Math.floor(inside / state.geometry.unitSize)) & 1) === 1;
}

/** What the guest saw at `offset`; zeros past the end of the disk. */
async function readOld(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
  fill: CowSource | null,
): Promise<void> {
  const inside = Math.max(0, Math.min(target.length, state.header.size - offset));
  target.fill(0, inside);
  if (inside > 0) await readImage(state, offset, target.subarray(0, inside), fill);
}

/**
 * Calls `use` with where a run is written: the clusters it has, or fresh ones, which are let go when that fails. `start`: guest byte of the
 * first one, which is its place in an external data file.
 */
async function withPlace<T>(
  state: Qcow2State,
  run: Run,
  count: number,
  start: number,
  use: (place: Place) => Promise<T>,
): Promise<T> {
  if (isExternal(state)) return use({ offset: start, count });
  if (run.way !== 'fresh' && run.way !== 'whole') return use({ offset: run.host, count });
  const place = await allocate(state, count);
  return releaseOnFailure(state, place, () => use(place));
}

/** Points the entries of a run to where [from, to) was written, and lets go what they pointed to. */
export function map(
  state: Qcow2State,
  run: Run,
  host: number,
  start: number,
  from: number,
  to: number,
): void {
  const { clusterSize, entryWords, extendedL2 } = state.geometry;
  const writer = writerOf(state);
  writer.dataDirty = true;
  if (run.way === 'in place' && !extendedL2) return;
  const { words } = run.table;
  const last = run.index + Math.ceil((to - start) / clusterSize);
  touchEntries(state, run.table, run.index, last);
  for (let index = run.index; index < last; index++) {
    const at = index * entryWords;
    const place = host + (index - run.index) * clusterSize;
    if (run.way === 'whole') letGo(state, run.table, index);
    words[at] = ownedHigh(place);
    words[at + 1] = offsetLow(place);
    if (extendedL2) {
      const cluster = start + (index - run.index) * clusterSize;
      const mask = unitMask(
        state,
        Math.max(from, cluster) - cluster,
        Math.min(to, cluster + clusterSize) - cluster,
      );
      words[at + 2] = (run.way === 'whole' ? 0 : (words[at + 2] as number) & ~mask) >>> 0;
      words[at + 3] = ((run.way === 'whole' ? 0 : (words[at + 3] as number)) | mask) >>> 0;
    }
  }
}

/** The units that [from, to) of a cluster covers wholly, as bits. */
export function unitMask(state: Qcow2State, from: number, to: number): number {
  const { unitSize, unitsPerCluster } = state.geometry;
  const first = Math.ceil(from / unitSize);
  const last = Math.floor(to / unitSize);
  if (last <= first) return 0;
  if (last - first >= unitsPerCluster) return unitsPerCluster === 32 ? 0xffff_ffff : 1;
  return (((1 << (last - first)) - 1) << first) >>> 0;
}

/**
 * Releases what an entry refers to: a data cluster, or all host clusters that a compressed one touches. What a staging has from its
 * image is the image's still.
 */
export function letGo(state: Qcow2State, table: L2Table, index: number): void {
  if (isExternal(state)) return;
  const at = index * state.geometry.entryWords;
  if (state.stagedOn !== null && ((table.words[at] as number) & HIGH_COPIED) === 0) return;
  const { offset, length } = hostPlace(state, table, index);
  if (length > 0) release(state, offset, length);
}

async function put(state: Qcow2State, host: number, whole: Uint8Array): Promise<void> {
  const { dataFile, size } = state.header;
  // what completes the last cluster is not the disk's: a raw data file ends with that
  const bytes = dataFile?.raw === true ? whole.subarray(0, Math.max(0, size - host)) : whole;
  if (!isExternal(state)) {
    await assertNoOverlap(state, host, bytes.length, null);
    // preallocated zeros may lie past the end
    state.fileEnd = Math.max(state.fileEnd, host + bytes.length);
  }
  await state.data.write(hostOffset(host), bytes, { what: 'data' });
}
