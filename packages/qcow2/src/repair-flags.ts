import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { isExternal } from './l2-entry.ts';
import type { References } from './references.ts';
import type { Qcow2State } from './state.ts';
import {
  ENTRY_BYTES,
  entryOffset,
  HIGH_COMPRESSED,
  HIGH_COPIED,
  SECTOR_BYTES,
} from './structures.ts';
import type { FlagChanges } from './survey.ts';
import { tableUses } from './table-uses.ts';
import { bytesOf, wordsOf } from './words.ts';
import { flushFile } from './writer.ts';

/**
 * Sets and takes copied flags of the disk's own mapping, L1 and L2 entries, in the file, durably. Tables that share their clusters with anything
 * else are left alone (W13): who refers to them otherwise would see the change.
 */
export async function writeFlags(
  state: Qcow2State,
  { tables, unreadable, counted, overlain }: References,
  changes: FlagChanges,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize, entryWords } = state.geometry;
  const { set, take } = changes;
  if (set.end === 0 && take.end === 0) return;
  const { l1TableOffset, l1Size } = state.header;
  const alone = (offset: number, references: number): boolean => {
    const cluster = offset / clusterSize;
    return counted.count(cluster) === references && !overlain.metadata.has(cluster);
  };
  const l1Alone = (): boolean => {
    for (let at = l1TableOffset; at < l1TableOffset + l1Size * ENTRY_BYTES; at += clusterSize)
      if (!alone(at, 1)) return false;
    return true;
  };
  if (l1Alone())
    await writeSectors(state, l1TableOffset, state.l1, flip(state, state.l1, 2, changes), options);
  if (!isExternal(state))
    for (const { offset, references, said } of tableUses(tables)) {
      if (said === 0 || unreadable.has(offset) || !alone(offset, references)) continue;
      const bytes = new Uint8Array(clusterSize);
      await state.storage.read(hostOffset(offset), bytes, options);
      const words = wordsOf(bytes);
      await writeSectors(state, offset, words, flip(state, words, entryWords, changes), options);
    }
  await flushFile(state, BARRIER.mapping);
}

/** Changes flags in the words of a table; returns the words that changed. */
function flip(
  { geometry }: Qcow2State,
  words: Uint32Array,
  entryWords: number,
  { set, take }: FlagChanges,
): readonly number[] {
  const changed: number[] = [];
  for (let at = 0; at < words.length; at += entryWords) {
    const [high, low] = [words[at] as number, words[at + 1] as number];
    const host = entryOffset(high, low);
    if ((high & HIGH_COMPRESSED) !== 0 || host <= 0 || host % geometry.clusterSize !== 0) continue;
    const cluster = host / geometry.clusterSize;
    const copied = (high & HIGH_COPIED) !== 0;
    if ((copied ? take : set).count(cluster) === 0) continue;
    words[at] = (high ^ HIGH_COPIED) >>> 0;
    changed.push(at);
  }
  return changed;
}

/** Writes the sectors of a table in the file that hold these words. */
async function writeSectors(
  { storage }: Qcow2State,
  offset: number,
  words: Uint32Array,
  changed: readonly number[],
  options?: OperationOptions,
): Promise<void> {
  const perSector = SECTOR_BYTES / 4;
  const sectors = new Set(changed.map((at) => Math.floor(at / perSector)));
  for (const sector of sectors)
    await storage.write(
      hostOffset(offset + sector * SECTOR_BYTES),
      bytesOf(words.subarray(sector * perSector, (sector + 1) * perSector)),
      { ...options, what: 'copied flags' },
    );
}
