import { hostOffset } from '@downfold/units';
import { parseHeader } from './header.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import {
  HEADER_V2_BYTES,
  type HeaderV2,
  type HeaderV3,
  headerV2,
  headerV3,
  SECTOR_BYTES,
} from './structures.ts';
import { inTurn, writerOf } from './writer.ts';

/**
 * Writes bytes of the header cluster and makes them durable. To be called in the header's turn, with bytes made in the same
 * turn. Rule W11: what must not be torn lies in one 512-byte sector, and what it points to is durable already. When it fails
 * nobody knows what the header says, and the image takes no more writes.
 */
export async function writeHeader(
  state: Qcow2State,
  at: number,
  bytes: Uint8Array,
  barrier: string,
): Promise<void> {
  await assertNoOverlap(state, at, bytes.length, 'header');
  const writer = writerOf(state);
  try {
    await state.storage.write(hostOffset(at), bytes, { what: 'header' });
    await state.storage.flush(barrier);
  } catch (cause) {
    writer.failure ??= cause;
    throw cause;
  }
  state.headerCluster.set(bytes, at);
  state.header = parseHeader(state.label, state.headerCluster, state.fileEnd, state.limits);
}

/** Changes fixed header fields, all of which lie in the first sector, durably. */
export function patchHeader(
  state: Qcow2State,
  fields: Partial<HeaderV2 & HeaderV3>,
  barrier: string,
): Promise<void> {
  return inTurn(state, 'header', async () => {
    const sector = state.headerCluster.slice(0, SECTOR_BYTES);
    headerV2.encode({ ...headerV2.decode(sector), ...pick(fields, headerV2.fields) }, sector);
    if (state.header.version === 3)
      headerV3.encode(
        { ...headerV3.decode(sector, HEADER_V2_BYTES), ...pick(fields, headerV3.fields) },
        sector,
        HEADER_V2_BYTES,
      );
    await writeHeader(state, 0, sector, barrier);
  });
}

function pick<T extends object>(from: Partial<T>, names: object): Partial<T> {
  return Object.fromEntries(Object.entries(from).filter(([name]) => name in names)) as Partial<T>;
}
