import { hostOffset } from '@downfold/units';
import { corrupt } from './corrupt.ts';
import { cleanTable, type L2Table } from './l2-table.ts';
import { disown } from './stage-entries.ts';
import type { Qcow2State } from './state.ts';
import { entryOffset, HIGH_COPIED, l1Reserved } from './structures.ts';
import { wordsOf } from './words.ts';

/** Byte of the L2 table of an L1 entry; 0 when there is none. @throws ImageError `IMAGE_CORRUPT`. */
export function l2OffsetAt(state: Qcow2State, l1Index: number): number {
  const high = state.l1[2 * l1Index] ?? 0;
  const low = state.l1[2 * l1Index + 1] ?? 0;
  const at = state.header.l1TableOffset + 8 * l1Index;
  if (l1Reserved(high, low)) throw corrupt(state.label, 'reserved bits are set in an L1 entry', at);
  const offset = entryOffset(high, low);
  if (offset === 0) return 0;
  assertClusterInFile(state, offset, state.geometry.clusterSize, 'L2 table', at);
  return offset;
}

/** Whether the L2 table of an L1 entry belongs to the active layer alone. */
export function l1Owned(state: Qcow2State, l1Index: number): boolean {
  return ((state.l1[2 * l1Index] ?? 0) & HIGH_COPIED) !== 0;
}

/** The L2 table of an L1 entry, from memory or the file; null when there is none. */
export function loadL2(state: Qcow2State, l1Index: number): Promise<L2Table | null> {
  return state.l2.load(l1Index, () =>
    readL2(state, l1Index, new Uint8Array(state.geometry.clusterSize)),
  );
}

/** The L2 table of an L1 entry as the file has it, in `bytes` (one cluster, the table's from now on); null when there is none. */
export async function readL2(
  state: Qcow2State,
  l1Index: number,
  bytes: Uint8Array,
): Promise<L2Table | null> {
  const offset = l2OffsetAt(state, l1Index);
  if (offset === 0) return null;
  await state.storage.read(hostOffset(offset), bytes);
  const words = wordsOf(bytes);
  const lower = state.stagedOn === null ? null : await loadL2(state.stagedOn, l1Index);
  if (lower !== null) disown(words, lower.words, state.geometry.entryWords);
  return cleanTable(l1Index, offset, words, lower?.words);
}

/**
 * Checks that `length` bytes at `offset` are whole clusters that start inside the file. `at`: the entry that points there.
 * @throws ImageError `IMAGE_CORRUPT`.
 */
export function assertInFile(
  state: Qcow2State,
  offset: number,
  length: number,
  what: string,
  at: number,
): void {
  const { clusterSize } = state.geometry;
  if (offset < 0 || offset % clusterSize !== 0)
    throw corrupt(state.label, `${what} at ${offset} is not aligned to a cluster`, at);
  if (offset + length - clusterSize >= state.fileEnd)
    throw corrupt(state.label, `${what} at ${offset} lies past the end of the file`, at);
}

/** As `assertInFile`, and that they are neither header, L1 table nor refcount table. */
export function assertClusterInFile(
  state: Qcow2State,
  offset: number,
  length: number,
  what: string,
  at: number,
): void {
  assertInFile(state, offset, length, what, at);
  const { header, geometry } = state;
  const { l1TableOffset, refcountTableOffset } = header;
  const refcountTableBytes = header.refcountTableClusters * geometry.clusterSize;
  if (
    meets(offset, length, 0, geometry.clusterSize) ||
    meets(offset, length, l1TableOffset, header.l1Size * 8) ||
    meets(offset, length, refcountTableOffset, refcountTableBytes)
  )
    throw corrupt(state.label, `${what} at ${offset} overlaps the header or a table`, at);
}

/** Whether `length` bytes from `offset` on and `bytes` from `from` on have one in common. */
function meets(offset: number, length: number, from: number, bytes: number): boolean {
  return offset < from + bytes && from < offset + length;
}
