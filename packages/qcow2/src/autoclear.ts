import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { loadRecording } from './bitmap-set.ts';
import { patchHeader } from './header-sector.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { AUTOCLEAR, BITMAP } from './structures.ts';
import { flushFile, writerOf } from './writer.ts';

/** What is about to change: the header alone, or the disk that the guest sees. */
export type Change = 'header' | 'disk';

/** Whether `disclaim` has something to do. */
export function claims(state: Qcow2State, change: Change): boolean {
  return hasUnknownBits(state) || (change === 'disk' && mustFlag(state));
}

/**
 * Rules W8 and W9, before a change: autoclear bits that Downfold does not know go, since it cannot keep true what they claim;
 * before a change of the disk, persistent bitmaps are flagged in use: should this process not come to save them, everyone takes them for
 * inconsistent and nobody for true. Durable when it resolves. An image opened for writing and closed unchanged stays as it was.
 */
export async function disclaim(state: Qcow2State, change: Change): Promise<void> {
  const flags = change === 'disk' && mustFlag(state);
  if (flags) {
    // what cannot be read cannot be kept true: known before anything is written
    await loadRecording(state);
    await flagBitmaps(state);
  }
  if (hasUnknownBits(state)) {
    const autoclear = [0, knownBits(state)] as const;
    await patchHeader(state, { autoclear }, BARRIER.autoclear);
  } else if (flags) await flushFile(state, BARRIER.autoclear);
  if (flags) writerOf(state).bitmaps.inUse = true;
}

function hasUnknownBits(state: Qcow2State): boolean {
  const [high, low] = state.header.autoclear;
  return high !== 0 || low !== knownBits(state);
}

function knownBits({ header }: Qcow2State): number {
  const known = AUTOCLEAR.bitmaps | (header.dataFile === null ? 0 : AUTOCLEAR.rawExternalData);
  return (header.autoclear[1] & known) >>> 0;
}

function mustFlag(state: Qcow2State): boolean {
  // what is staged changes no disk yet
  if (state.stagedOn !== null) return false;
  const { inUse, list } = writerOf(state).bitmaps;
  return (
    !inUse && list.some(({ stored }) => stored !== null && (stored.flags & BITMAP.inUse) === 0)
  );
}

async function flagBitmaps(state: Qcow2State): Promise<void> {
  for (const { stored } of writerOf(state).bitmaps.list) {
    if (stored === null || (stored.flags & BITMAP.inUse) !== 0) continue;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, (stored.flags | BITMAP.inUse) >>> 0);
    await assertNoOverlap(state, stored.flagsAt, bytes.length, 'bitmap directory');
    await state.storage.write(hostOffset(stored.flagsAt), bytes, { what: 'bitmap directory' });
  }
}
