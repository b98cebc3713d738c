import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import type { Claim } from './claims.ts';
import type { L2Counter, Report } from './l2-counter.ts';
import { sameHost } from './stage-entries.ts';
import type { StagedPlace } from './stage-place.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, entryOffset, l1Reserved } from './structures.ts';
import { wordsOf } from './words.ts';

/** An L2 table of a staging that is not the image's own, and the image's at the same place; 0: there is none. */
export interface StagedTable {
  readonly offset: number;
  readonly lowerOffset: number;
}

/** Claims the L1 table of a staging and those of its L2 tables that are not the image's. */
export async function claimStaging(
  state: Qcow2State,
  keep: StagedPlace,
  claim: Claim,
  report: Report,
): Promise<readonly StagedTable[]> {
  const bytes = new Uint8Array(keep.l1Size * ENTRY_BYTES);
  if (!claim("staging's L1 table", keep.l1Offset, bytes.length)) return [];
  await state.storage.read(hostOffset(keep.l1Offset), bytes);
  const l1 = wordsOf(bytes);
  const own: StagedTable[] = [];
  for (let at = 0; at < l1.length; at += 2) {
    if (sameHost(l1, state.l1, at)) continue;
    const [high, low] = [l1[at] as number, l1[at + 1] as number];
    if (l1Reserved(high, low))
      report("reserved bits are set in an entry of a staging's L1 table", at * 4);
    const offset = entryOffset(high, low);
    if (claim("staging's L2 table", offset, 1))
      own.push({ offset, lowerOffset: entryOffset(state.l1[at] ?? 0, state.l1[at + 1] ?? 0) });
  }
  return own;
}

/** Counts what a table of a staging refers to, and the image's table at the same place does not. */
export async function walkStaged(
  state: Qcow2State,
  { offset, lowerOffset }: StagedTable,
  counter: L2Counter,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize, entryWords } = state.geometry;
  const read = async (at: number): Promise<Uint32Array> => {
    const bytes = new Uint8Array(clusterSize);
    await state.storage.read(hostOffset(at), bytes, options);
    return wordsOf(bytes);
  };
  const words = await read(offset);
  if (lowerOffset > 0) {
    const lower = await read(lowerOffset);
    for (let at = 0; at < words.length; at += entryWords)
      if (sameHost(words, lower, at)) words.fill(0, at, at + entryWords);
  }
  counter.count(words, offset, 1, false);
}
