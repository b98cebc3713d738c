import { touchEntries } from './allocate.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import type { HostCounts } from './host-counts.ts';
import { hostOf, isExternal } from './l2-entry.ts';
import type { Qcow2State } from './state.ts';
import { HIGH_COMPRESSED, HIGH_COPIED } from './structures.ts';
import { loadL2 } from './tables.ts';
import { writerOf } from './writer.ts';

/**
 * Sets the copied flag of all entries of the disk that refer to `clusters`, L2 tables and data. In memory, to be flushed; much of
 * it is flushed at once.
 */
export async function setCopied(state: Qcow2State, clusters: HostCounts): Promise<void> {
  const { clusterSize, l2Entries, entryWords } = state.geometry;
  if (clusters.chunks.size === 0) return;
  const writer = writerOf(state);
  const flagged = (high: number): number => (high | HIGH_COPIED) >>> 0;
  for (let l1Index = 0; 2 * l1Index < state.l1.length; l1Index++) {
    const table = await loadL2(state, l1Index);
    if (table === null) continue;
    if (clusters.count(table.offset / clusterSize) > 0) {
      state.l1[2 * l1Index] = flagged(state.l1[2 * l1Index] as number);
      writer.l1Changed.add(l1Index);
    }
    for (let index = 0; index < l2Entries && !isExternal(state); index++) {
      const high = table.words[index * entryWords] as number;
      if ((high & HIGH_COMPRESSED) !== 0) continue;
      const host = hostOf(state, table, index);
      if (host === 0 || clusters.count(host / clusterSize) === 0) continue;
      table.words[index * entryWords] = flagged(high);
      touchEntries(state, table, index, index + 1);
    }
    if (isMuchDirty(state)) await flushImage(state);
  }
}
