import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { readBitmaps } from './bitmaps.ts';
import { patchHeader } from './header-sector.ts';
import type { Qcow2State, Writer } from './state.ts';
import { AUTOCLEAR } from './structures.ts';

const IN_USE = 1;

/**
 * Rules W8 and W9, before the first change of an image: autoclear bits that Downfold does not know go, since it cannot keep true
 * what they claim; persistent bitmaps, which it does not update, are flagged in use, so that everyone takes them for inconsistent
 * and nobody for true. Durable before it resolves. An image opened for writing and closed unchanged stays as it was.
 */
export async function claimAutoclear(state: Qcow2State, writer: Writer): Promise<void> {
  if (writer.autoclearDone) return;
  const [high, low] = state.header.autoclear;
  const known = (low & AUTOCLEAR.bitmaps) >>> 0;
  const bitmaps = (await readBitmaps(state))?.bitmaps ?? [];
  for (const { flagsAt, flags } of bitmaps) {
    if (flags & IN_USE) continue;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, flags | IN_USE);
    await state.storage.write(hostOffset(flagsAt), bytes, { what: 'bitmap directory' });
  }
  if (bitmaps.length > 0) await state.storage.flush(BARRIER.autoclear);
  if (high !== 0 || low !== known)
    await patchHeader(state, { autoclear: [0, known] }, BARRIER.autoclear);
  writer.autoclearDone = true;
}
