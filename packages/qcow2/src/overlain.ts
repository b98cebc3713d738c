import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { type HostCounts, USE } from './host-counts.ts';
import { isExternal } from './l2-entry.ts';
import type { Qcow2State } from './state.ts';
import { compressedBytes, compressedOffset, entryOffset, HIGH_COMPRESSED } from './structures.ts';
import { wordsOf } from './words.ts';

/**
 * What L2 tables refer to that lie over other metadata. None of it is counted, as such a table is hardly one; but a reader takes it
 * for one, and shows a guest what its entries lead to: a repair must leave that as it is.
 */
export interface Overlain {
  /** Numbers of the clusters of metadata among it. */
  readonly metadata: ReadonlySet<number>;
  /** Number of the first cluster behind all of it. */
  readonly end: number;
}

/** Looks through the tables at these bytes of the file. `counted`: where metadata lies. */
export async function readOverlain(
  state: Qcow2State,
  offsets: ReadonlySet<number>,
  counted: HostCounts,
  options?: OperationOptions,
): Promise<Overlain> {
  const { clusterSize, clusterBits, entryWords } = state.geometry;
  const metadata = new Set<number>();
  let end = 0;
  // what entries lead to in a data file is no metadata
  if (offsets.size === 0 || isExternal(state)) return { metadata, end };
  const bytes = new Uint8Array(clusterSize);
  for (const offset of offsets) {
    if (offset % clusterSize !== 0 || offset >= state.fileEnd) continue;
    await state.storage.read(hostOffset(offset), bytes, options);
    const words = wordsOf(bytes);
    for (let at = 0; at < words.length; at += entryWords) {
      const [high, low] = [words[at] as number, words[at + 1] as number];
      const compressed = (high & HIGH_COMPRESSED) !== 0;
      const host = compressed ? compressedOffset(high, low, clusterBits) : entryOffset(high, low);
      if (host <= 0 || host >= state.fileEnd) continue;
      const length = compressed ? compressedBytes(high, low, clusterBits) : clusterSize;
      const last = Math.floor((host + length - 1) / clusterSize);
      for (let cluster = Math.floor(host / clusterSize); cluster <= last; cluster++)
        if (counted.is(cluster, USE.metadata)) metadata.add(cluster);
      end = Math.max(end, last + 1);
    }
  }
  return { metadata, end };
}
