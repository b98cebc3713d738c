import type { ImageWriteOptions } from '@downfold/image';
import { alignUp, type ByteLength, type GuestOffset, hostOffset } from '@downfold/units';
import { ownTable, touchEntries } from './allocate.ts';
import { readCompressed } from './compressed.ts';
import { imageExtents } from './extents.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import type { L2Table } from './l2-table.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COMPRESSED, LOW_ZERO } from './structures.ts';
import { loadL2 } from './tables.ts';
import { letGo, unitMask, writeImage } from './write.ts';
import { writerOf } from './writer.ts';

/** Zeros that metadata cannot say are written as data in pieces that end at multiples of this: the largest cluster, so that none is cut. */
const ZERO_BYTES = 2 << 20;

/** What becomes of a range: explicit zeros that hide the backing file, or nothing, so that it shows again. */
type Becomes = 'zero' | 'unallocated';

/** What zeros need besides: what lies below, and whether they hide what comes to lie there later. */
type Zeros = Pick<ImageWriteOptions, 'fill' | 'hides'>;

/**
 * Makes [from, to) explicit zeros: by metadata for whole units (allocations are let go, so that space comes back; version 2
 * images without a backing file deallocate), as data where a unit is cut or the format has no zero flag.
 */
export async function zeroImage(
  state: Qcow2State,
  from: number,
  to: number,
  zeros: Zeros,
): Promise<void> {
  await zeroRawData(state, from, to);
  const hidden = state.header.version === 2 && mustHide(state, zeros);
  const { unitSize, clusterSize } = state.geometry;
  const first = Math.ceil(from / unitSize) * unitSize;
  const last = to >= state.header.size ? alignUp(to, clusterSize) : to - (to % unitSize);
  if (hidden || last <= first) return writeZeroData(state, from, to, zeros);
  await writeZeroData(state, from, first, zeros);
  await unmap(state, first, last, state.header.version === 2 ? 'unallocated' : 'zero', zeros);
  await writeZeroData(state, Math.min(to, last), to, zeros);
}

/** Whether what is unallocated shows, or will show, something else than zeros. */
function mustHide(state: Qcow2State, { hides }: Zeros): boolean {
  return state.header.backing !== null || hides === true;
}

/** Deallocates every unit that lies wholly in [from, to), or is cut only by the end of the disk. */
export async function deallocateImage(state: Qcow2State, from: number, to: number): Promise<void> {
  const { unitSize, clusterSize } = state.geometry;
  const first = Math.ceil(from / unitSize) * unitSize;
  const last = to >= state.header.size ? alignUp(to, clusterSize) : to - (to % unitSize);
  if (last <= first) return;
  await zeroRawData(state, first, Math.min(last, state.header.size));
  await unmap(state, first, last, 'unallocated', { fill: null });
}

/** A raw data file alone reads as the disk does: what tables say is zero is zero there, too. */
async function zeroRawData(state: Qcow2State, from: number, to: number): Promise<void> {
  if (state.header.dataFile?.raw !== true || to <= from) return;
  const range = { offset: hostOffset(from), length: (to - from) as ByteLength };
  await state.data.writeZeroes(range, { what: 'data' });
  writerOf(state).dataDirty = true;
}

async function writeZeroData(
  state: Qcow2State,
  from: number,
  to: number,
  zeros: Zeros,
): Promise<void> {
  for (let at = from; at < to; ) {
    const bytes = new Uint8Array(Math.min(ZERO_BYTES - (at % ZERO_BYTES), to - at));
    if (!(await readsZero(state, at, bytes.length, zeros)))
      await writeImage(state, at, bytes, zeros.fill);
    at += bytes.length;
  }
}

/** Whether a range reads as zeros already, whatever a backing file holds. */
async function readsZero(
  state: Qcow2State,
  from: number,
  length: number,
  zeros: Zeros,
): Promise<boolean> {
  const range = { offset: from as GuestOffset, length: length as ByteLength };
  for await (const batch of imageExtents(state, range)) {
    for (const { status } of batch) {
      if (status === 'zero' || (status === 'unallocated' && !mustHide(state, zeros))) continue;
      return false;
    }
  }
  return true;
}

/** Changes the entries of whole units [from, to). */
async function unmap(
  state: Qcow2State,
  from: number,
  to: number,
  becomes: Becomes,
  zeros: Zeros,
): Promise<void> {
  const hides = becomes === 'zero' && mustHide(state, zeros);
  const { l2Reach, clusterSize, l2Entries } = state.geometry;
  for (let at = from; at < to; ) {
    const l1Index = Math.floor(at / l2Reach);
    const base = l1Index * l2Reach;
    const stop = Math.min(to, base + l2Reach);
    let table = await loadL2(state, l1Index);
    if (table === null && !hides) {
      at = stop;
      continue;
    }
    const lastIndex = Math.min(l2Entries, Math.ceil((stop - base) / clusterSize));
    for (let index = Math.floor((at - base) / clusterSize); index < lastIndex; index++) {
      const start = base + index * clusterSize;
      const part = [
        Math.max(at, start) - start,
        Math.min(stop, start + clusterSize) - start,
      ] as const;
      if (table !== null && !changes(state, table, index, part, { becomes, hides })) continue;
      if (table !== null && cutsCompressed(state, table, index, part)) {
        if (becomes === 'zero') {
          await writeZeroData(state, start + part[0], start + part[1], zeros);
          continue;
        }
        await unpackCluster(state, start);
      }
      table = await ownTable(state, l1Index);
      change(state, table, index, part, becomes);
    }
    at = stop;
    // of a large disk neither all tables nor all that is let go stays in memory; a staging's flush is its own
    if (state.stagedOn === null && isMuchDirty(state)) await flushImage(state);
  }
}

/** Whether units [part) of an entry are not what they shall become already. */
function changes(
  state: Qcow2State,
  table: L2Table,
  index: number,
  part: readonly [from: number, to: number],
  { becomes, hides }: { readonly becomes: Becomes; readonly hides: boolean },
): boolean {
  const { words } = table;
  const at = index * state.geometry.entryWords;
  const [high, low] = [words[at] as number, words[at + 1] as number];
  if (!state.geometry.extendedL2) {
    if (high === 0 && low === 0) return hides;
    return becomes === 'unallocated' || (high & HIGH_COMPRESSED) !== 0 || (low & LOW_ZERO) === 0;
  }
  if (high & HIGH_COMPRESSED) return true;
  const mask = unitMask(state, part[0], part[1]);
  const [zero, allocated] = [words[at + 2] as number, words[at + 3] as number];
  if (becomes === 'unallocated') return ((zero | allocated) & mask) !== 0;
  return (allocated & mask) !== 0 || (hides && (zero & mask) >>> 0 !== mask);
}

/** Rewrites the compressed cluster at guest byte `start` as data, of which subclusters can be told apart. */
async function unpackCluster(state: Qcow2State, start: number): Promise<void> {
  const bytes = await readCompressed(state, start);
  const length = Math.min(bytes.length, state.header.size - start);
  await writeImage(state, start, bytes.subarray(0, length), null);
}

/** Whether only some subclusters of a compressed cluster are meant: it has no bitmap to say so. */
function cutsCompressed(
  state: Qcow2State,
  table: L2Table,
  index: number,
  part: readonly [from: number, to: number],
): boolean {
  const high = table.words[index * state.geometry.entryWords] as number;
  return (high & HIGH_COMPRESSED) !== 0 && part[1] - part[0] < state.geometry.clusterSize;
}

function change(
  state: Qcow2State,
  table: L2Table,
  index: number,
  part: readonly [from: number, to: number],
  becomes: Becomes,
): void {
  const { words } = table;
  const at = index * state.geometry.entryWords;
  touchEntries(state, table, index, index + 1);
  if (!state.geometry.extendedL2) {
    letGo(state, table, index);
    words[at] = 0;
    words[at + 1] = becomes === 'zero' ? LOW_ZERO : 0;
    return;
  }
  const mask = unitMask(state, part[0], part[1]);
  const compressed = ((words[at] as number) & HIGH_COMPRESSED) !== 0;
  const allocated = compressed ? 0 : ((words[at + 3] as number) & ~mask) >>> 0;
  if (allocated === 0) {
    letGo(state, table, index);
    words[at] = 0;
    words[at + 1] = 0;
  }
  words[at + 2] = (((words[at + 2] as number) & ~mask) | (becomes === 'zero' ? mask : 0)) >>> 0;
  words[at + 3] = allocated;
}
