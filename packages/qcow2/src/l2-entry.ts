import { type CompressedPlace, compressedPlace } from './compressed.ts';
import { corrupt } from './corrupt.ts';
import type { L2Table } from './l2-table.ts';
import type { Qcow2State } from './state.ts';
import { entryOffset, HIGH_COMPRESSED, HIGH_COPIED, LOW_ZERO, l2Reserved } from './structures.ts';

/**
 * Byte of the host cluster of an L2 entry that is not compressed; 0 when it has none.
 * @throws ImageError `IMAGE_CORRUPT` for an entry that breaks the format's rules; where the cluster lies is not looked at.
 */
export function hostOf(state: Qcow2State, table: L2Table, index: number): number {
  const { entryWords, extendedL2, clusterSize } = state.geometry;
  const at = index * entryWords;
  const high = table.words[at] as number;
  const low = table.words[at + 1] as number;
  if (l2Reserved(high, low, extendedL2))
    throw corrupt(state.label, 'reserved bits are set in an L2 entry', entryAt(table, at));
  if (low & LOW_ZERO && state.header.version === 2)
    throw corrupt(state.label, 'zero flag in a version 2 image', entryAt(table, at));
  const host = entryOffset(high, low);
  if (host < 0 || host % clusterSize !== 0)
    throw corrupt(state.label, `L2 entry points to ${host}, not a cluster`, entryAt(table, at));
  if (isExternal(state) && hasHost(state, high, host) && host !== guestOf(state, table, index))
    throw corrupt(
      state.label,
      `L2 entry points to ${host} in the data file, not where the guest has it`,
      entryAt(table, at),
    );
  return host;
}

/** Guest byte of an entry's cluster, which is its place in an external data file. */
function guestOf({ geometry }: Qcow2State, { index }: L2Table, entry: number): number {
  return index * geometry.l2Reach + entry * geometry.clusterSize;
}

/** Whether guest data is in a file of its own, each byte where the guest has it, and uncounted. */
export function isExternal({ external }: Qcow2State): boolean {
  return external !== null;
}

/** Whether an entry that is not compressed has a place for data; in an external file that may be byte 0, with the copied flag. */
export function hasHost(state: Qcow2State, high: number, host: number): boolean {
  return host !== 0 || ((high & HIGH_COPIED) !== 0 && isExternal(state));
}

/**
 * The host bytes that an L2 entry refers to: a data cluster, or where its compressed cluster lies; of length 0 when it has none.
 * @throws ImageError `IMAGE_CORRUPT`.
 */
export function hostPlace(state: Qcow2State, table: L2Table, index: number): CompressedPlace {
  const at = index * state.geometry.entryWords;
  const high = table.words[at] as number;
  const low = table.words[at + 1] as number;
  if (high & HIGH_COMPRESSED) return compressedPlace(state, high, low);
  const offset = hostOf(state, table, index);
  return { offset, length: offset === 0 ? 0 : state.geometry.clusterSize };
}

/** Numbers of the host clusters that an L2 entry refers to: one, none, or all that its compressed cluster touches. */
export function hostClusters(state: Qcow2State, table: L2Table, index: number): readonly number[] {
  const { clusterSize } = state.geometry;
  const { offset, length } = hostPlace(state, table, index);
  const clusters: number[] = [];
  for (let at = offset - (offset % clusterSize); at < offset + length; at += clusterSize)
    clusters.push(at / clusterSize);
  return clusters;
}

/** Byte in the file of word `at` of a table. */
export function entryAt(table: L2Table, at: number): number {
  return table.offset + at * 4;
}
