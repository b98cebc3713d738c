import { promisify } from 'node:util';
import { constants, deflateRaw, zstdCompress } from 'node:zlib';
import { type GuestRange, hostOffset, rangeEnd } from '@downfold/units';
import { allocate, ownTable, release, touchEntries } from './allocate.ts';
import { imageError } from './corrupt.ts';
import { assertOwnData } from './data-file.ts';
import { assertPlain } from './encryption.ts';
import type { L2Table } from './l2-table.ts';
import { assertNoOverlap } from './overlap.ts';
import { largestRefcount } from './refcount-codec.ts';
import { addReference, refcountOf } from './refcounts.ts';
import type { Qcow2State } from './state.ts';
import { COMPRESSION, compressedHigh, compressedLimit, offsetLow } from './structures.ts';
import { letGo, writeImage } from './write.ts';
import { writerOf } from './writer.ts';

const [deflate, zstd] = [promisify(deflateRaw), promisify(zstdCompress)];

/** A cluster's content, and what it was compressed to; null: it does not become smaller. */
export interface Compressed {
  readonly bytes: Uint8Array;
  readonly packed: Uint8Array | null;
}

/** @throws ImageError `IMAGE_RANGE` when `range` cuts a cluster that the disk does not. */
export function assertWholeClusters(state: Qcow2State, range: GuestRange): void {
  assertOwnData(state, 'compressed clusters');
  assertPlain(state, 'compressed clusters');
  const { clusterSize } = state.geometry;
  const end = rangeEnd(range);
  if (range.offset % clusterSize === 0 && (end % clusterSize === 0 || end === state.header.size))
    return;
  throw imageError(
    'IMAGE_RANGE',
    state.label,
    'only whole clusters can be compressed',
    range.offset,
  );
}

/** Compresses whole clusters, beside each other. Nothing is written. `source`: from a cluster's start; zeros complete the last one. */
export function compressClusters(
  state: Qcow2State,
  source: Uint8Array,
): Promise<readonly Compressed[]> {
  const { clusterSize } = state.geometry;
  const parts = Array.from({ length: Math.ceil(source.length / clusterSize) }, (_, index) =>
    source.subarray(index * clusterSize, (index + 1) * clusterSize),
  );
  return Promise.all(
    parts.map(async (bytes) => {
      const whole = new Uint8Array(clusterSize);
      whole.set(bytes);
      const packed = await compress(state, whole);
      return { bytes, packed: packed.length < clusterSize ? packed : null };
    }),
  );
}

/** As QEMU: raw deflate with a window of 4 KiB, or one zstd frame. */
function compress(state: Qcow2State, cluster: Uint8Array): Promise<Uint8Array> {
  if (state.header.compressionType === COMPRESSION.zstd) return zstd(cluster);
  return deflate(cluster, {
    windowBits: 12,
    memLevel: 9,
    level: constants.Z_DEFAULT_COMPRESSION,
  });
}

/**
 * Maps guest clusters from byte `offset` on to compressed data; what does not become smaller is written as it is. Data goes to its place
 * at once, tables change in memory only. To be run in the mutation queue.
 */
export async function writeCompressed(
  state: Qcow2State,
  offset: number,
  clusters: readonly Compressed[],
): Promise<void> {
  const { clusterSize } = state.geometry;
  for (const [index, { bytes, packed }] of clusters.entries()) {
    const at = offset + index * clusterSize;
    const host = packed === null ? null : await place(state, packed.length);
    if (packed === null || host === null) await writeImage(state, at, bytes, null);
    else await putPacked(state, at, host, packed);
  }
}

async function putPacked(
  state: Qcow2State,
  at: number,
  host: number,
  packed: Uint8Array,
): Promise<void> {
  const { clusterSize, clusterBits, l2Reach, entryWords } = state.geometry;
  const l1Index = Math.floor(at / l2Reach);
  const index = (at - l1Index * l2Reach) / clusterSize;
  let table: L2Table;
  try {
    await assertNoOverlap(state, host, packed.length, null);
    await state.storage.write(hostOffset(host), packed, { what: 'compressed data' });
    writerOf(state).dataDirty = true;
    table = await ownTable(state, l1Index);
    letGo(state, table, index);
  } catch (cause) {
    release(state, host, packed.length);
    throw cause;
  }
  touchEntries(state, table, index, index + 1);
  table.words.fill(0, index * entryWords, (index + 1) * entryWords);
  table.words[index * entryWords] = compressedHigh(host, packed.length, clusterBits);
  table.words[index * entryWords + 1] = offsetLow(host);
  state.compressedAnew += 1;
  if (state.lastCompressed?.at === at) state.lastCompressed = null;
}

/**
 * A place for `length` bytes, less than a cluster: behind what was compressed last, into the next cluster when that is free, or in a fresh
 * one. Each cluster it touches has one reference more, in memory. Null: no compressed cluster can lie where there is room.
 */
async function place(state: Qcow2State, length: number): Promise<number | null> {
  const { clusterSize, clusterBits } = state.geometry;
  const writer = writerOf(state);
  const inside = writer.compressedAt % clusterSize;
  const left = inside === 0 || !(await canShare(state)) ? 0 : clusterSize - inside;
  let at = writer.compressedAt;
  if (left < length) {
    const fresh = await allocate(state, 1);
    // two pieces, when the second one follows the first
    if (left === 0 || fresh.offset !== at + left) at = fresh.offset;
  }
  if (at + length > compressedLimit(clusterBits)) {
    release(state, at + length - 1, 1);
    return null;
  }
  if (at % clusterSize !== 0)
    await addReference(state, writer.refcounts, Math.floor(at / clusterSize));
  writer.compressedAt = at + length;
  return at;
}

/** Whether the cluster that was compressed to last can count another reference. */
async function canShare(state: Qcow2State): Promise<boolean> {
  const { clusterSize, refcountBits } = state.geometry;
  const { refcounts, compressedAt } = writerOf(state);
  const count = await refcountOf(state, refcounts, Math.floor(compressedAt / clusterSize));
  return count < largestRefcount(refcountBits);
}
