import { claims, disclaim } from './autoclear.ts';
import { record } from './bitmap-set.ts';
import { sameEntry, sameHost } from './stage-entries.ts';
import { imageOf } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import { loadL2 } from './tables.ts';
import { writerOf } from './writer.ts';

/**
 * Before a publish: bitmaps record all that it changes of the disk, and are flagged in use (W9). Until then nothing that they speak of has changed, so that
 * a staging which is given up, or killed, leaves them as they are; and what an earlier process staged is found in the tables.
 */
export async function recordStaged(staged: Qcow2State): Promise<void> {
  const image = imageOf(staged);
  if (writerOf(image).bitmaps.list.length === 0) return;
  const changes = await changesOf(staged, image);
  if (changes.length === 0) return;
  if (claims(image, 'disk')) await disclaim(image, 'disk');
  for (const [from, to] of changes) record(image, from, to);
}

/** Runs of guest bytes, [from, to), in clusters that a staging decides by another entry than its image, or where the disk ends elsewhere. */
async function changesOf(
  staged: Qcow2State,
  image: Qcow2State,
): Promise<readonly (readonly [from: number, to: number])[]> {
  const { clusterSize, l2Entries, entryWords } = image.geometry;
  const { size } = staged.header;
  const changes: [number, number][] = [];
  const add = (from: number, to: number): void => {
    const last = changes.at(-1);
    if (last?.[1] === from) last[1] = to;
    else if (from < to) changes.push([from, to]);
  };
  for (let l1Index = 0; 2 * l1Index < staged.l1.length; l1Index++) {
    if (sameHost(staged.l1, image.l1, 2 * l1Index)) continue;
    const after = (await loadL2(staged, l1Index))?.words ?? new Uint32Array();
    const before = (await loadL2(image, l1Index))?.words ?? new Uint32Array();
    for (let index = 0; index < l2Entries; index++) {
      if (sameEntry(after, before, index * entryWords, entryWords)) continue;
      const from = (l1Index * l2Entries + index) * clusterSize;
      add(from, Math.min(from + clusterSize, size));
    }
  }
  return changes;
}
