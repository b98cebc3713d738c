import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { readBitmaps } from './bitmaps.ts';
import { patchHeader } from './header-sector.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { AUTOCLEAR, BITMAP } from './structures.ts';
import { flushFile, writerOf } from './writer.ts';

/** What is about to change: the header alone, or the disk that the guest sees. */
export type Change = 'header' | 'disk';

/** Whether `disclaim` has something to do. */
export function claims(state: Qcow2State, change: Change): boolean {
  const [high, low] = state.header.autoclear;
  const writer = writerOf(state);
  return high !== 0 || low !== knownBits(low) || (change === 'disk' && !writer.bitmapsDisowned);
}

/**
 * Rules W8 and W9, before a change: autoclear bits that Downfold does not know go, since it cannot keep true what they claim;
 * before a change of the disk, persistent bitmaps, which it does not update, are flagged in use, so that everyone takes them for
 * inconsistent and nobody for true. Durable when it resolves. An image opened for writing and closed unchanged stays as it was.
 */
export async function disclaim(state: Qcow2State, change: Change): Promise<void> {
  const writer = writerOf(state);
  const flagged = change === 'disk' && !writer.bitmapsDisowned && (await flagBitmaps(state));
  const [high, low] = state.header.autoclear;
  if (high !== 0 || low !== knownBits(low))
    await patchHeader(state, { autoclear: [0, knownBits(low)] }, BARRIER.autoclear);
  else if (flagged) await flushFile(state, BARRIER.autoclear);
  if (change === 'disk') writer.bitmapsDisowned = true;
}

function knownBits(low: number): number {
  return (low & AUTOCLEAR.bitmaps) >>> 0;
}

/** Resolves with whether anything was written. */
async function flagBitmaps(state: Qcow2State): Promise<boolean> {
  let written = false;
  for (const { flagsAt, flags } of (await readBitmaps(state))?.bitmaps ?? []) {
    if (flags & BITMAP.inUse) continue;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, flags | BITMAP.inUse);
    await assertNoOverlap(state, flagsAt, bytes.length, 'bitmap directory');
    await state.storage.write(hostOffset(flagsAt), bytes, { what: 'bitmap directory' });
    written = true;
  }
  return written;
}
