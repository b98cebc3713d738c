import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { readBitmaps } from './bitmaps.ts';
import { imageError } from './corrupt.ts';
import { type HostCounts, USE } from './host-counts.ts';
import type { Report } from './l2-counter.ts';
import { SAFE_LIMITS } from './limits.ts';
import { readRefcountTable } from './refcounts.ts';
import { readSnapshots, type Snapshot, snapshotTableBytes } from './snapshots.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, entryOffset, tableOffset, tableReserved } from './structures.ts';
import { usedWords, wordsOf } from './words.ts';

/** Counts a reference to each cluster of a metadata structure; false when it is not where one may be. */
export type Claim = (what: string, offset: number, bytes: number) => boolean;

export function claimer(state: Qcow2State, counted: HostCounts, report: Report): Claim {
  const { clusterSize } = state.geometry;
  const fileClusters = Math.ceil(state.fileEnd / clusterSize);
  return (what, offset, bytes) => {
    const first = offset / clusterSize;
    const end = first + Math.ceil(bytes / clusterSize);
    if (offset < 0 || offset % clusterSize !== 0 || end > fileClusters) {
      report(`${what} at ${offset} is not in clusters of the file`, offset);
      if (offset >= 0 && end > fileClusters) counted.pointsBeyond(Math.max(offset, state.fileEnd));
      return false;
    }
    let clear = true;
    for (let cluster = first; cluster < end; cluster++) {
      if (counted.is(cluster, USE.metadata)) {
        report(`${what} overlaps other metadata`, cluster * clusterSize);
        clear = false;
      }
      counted.add(cluster, 1, USE.metadata);
    }
    return clear;
  };
}

/** Where refcount blocks lie, by index, 0 where there is none; whether all of them and the table lie in clusters that may be theirs. */
export interface RefcountPlaces {
  readonly blocks: Float64Array;
  readonly alone: boolean;
}

/** The refcount table and its blocks. */
export async function claimRefcounts(
  state: Qcow2State,
  claim: Claim,
  report: Report,
): Promise<RefcountPlaces> {
  const { refcountTableOffset: offset, refcountTableClusters: clusters } = state.header;
  let alone = claim('refcount table', offset, clusters * state.geometry.clusterSize);
  const table = await readRefcountTable(state);
  const blocks = new Float64Array(table.length / 2);
  for (let index = 0, end = usedWords(table) / 2; index < end; index++) {
    const [high, low] = [table[2 * index] as number, table[2 * index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (tableReserved(low)) {
      report('reserved bits are set in a refcount table entry', offset + ENTRY_BYTES * index);
      alone = false;
    }
    const block = tableOffset(high, low);
    if (block === 0) continue;
    if (claim('refcount block', block, 1)) blocks[index] = block;
    else alone = false;
  }
  return { blocks, alone };
}

/** The snapshot table and the L1 tables it names; resolves with the snapshots whose L1 tables can be read. */
export async function claimSnapshots(
  state: Qcow2State,
  claim: Claim,
): Promise<readonly Snapshot[]> {
  const snapshots = await readSnapshots(state);
  if (snapshots.length > 0)
    claim('snapshot table', state.header.snapshotsOffset, snapshotTableBytes(snapshots));
  return snapshots.filter(({ l1TableOffset, l1Size }) =>
    claim("snapshot's L1 table", l1TableOffset, l1Size * ENTRY_BYTES),
  );
}

/** The bitmap directory, the tables it names, and the data these name. */
export async function claimBitmaps(
  state: Qcow2State,
  claim: Claim,
  options?: OperationOptions,
): Promise<void> {
  const directory = await readBitmaps(state);
  if (directory === null) return;
  claim('bitmap directory', directory.offset, directory.length);
  for (const { tableOffset: at, tableSize } of directory.bitmaps) {
    const length = tableSize * ENTRY_BYTES;
    if (length > SAFE_LIMITS.bitmapTable)
      throw imageError('IMAGE_LIMIT', state.label, `bitmap table of ${length} bytes`, at);
    if (!claim('bitmap table', at, length)) continue;
    const bytes = new Uint8Array(length);
    await state.storage.read(hostOffset(at), bytes, options);
    const words = wordsOf(bytes);
    for (let index = 0; index < words.length; index += 2) {
      const offset = entryOffset(words[index] as number, words[index + 1] as number);
      if (offset !== 0) claim('bitmap data', offset, 1);
    }
  }
}
