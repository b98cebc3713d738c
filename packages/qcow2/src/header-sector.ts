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

/**
 * Rule W11: rewrites the first sector of the header in one 512-byte write and makes it durable. The caller has made durable
 * what the new sector points to.
 */
export async function writeHeaderSector(
  state: Qcow2State,
  sector: Uint8Array,
  barrier: string,
): Promise<void> {
  await assertNoOverlap(state, 0, SECTOR_BYTES, 'header');
  await state.storage.write(hostOffset(0), sector, { what: 'header' });
  await state.storage.flush(barrier);
  adoptHeader(state, sector, 0);
}

/** Changes fixed header fields, all of which lie in the first sector. */
export async function patchHeader(
  state: Qcow2State,
  fields: Partial<HeaderV2 & HeaderV3>,
  barrier: string,
): Promise<void> {
  const sector = state.headerCluster.slice(0, SECTOR_BYTES);
  headerV2.encode({ ...headerV2.decode(sector), ...pick(fields, headerV2.fields) }, sector);
  if (state.header.version === 3)
    headerV3.encode(
      { ...headerV3.decode(sector, HEADER_V2_BYTES), ...pick(fields, headerV3.fields) },
      sector,
      HEADER_V2_BYTES,
    );
  await writeHeaderSector(state, sector, barrier);
}

/** Takes over bytes of the header cluster that were written at `at`. */
export function adoptHeader(state: Qcow2State, bytes: Uint8Array, at: number): void {
  state.headerCluster.set(bytes, at);
  state.header = parseHeader(state.label, state.headerCluster, state.fileEnd, state.limits);
}

function pick<T extends object>(from: Partial<T>, names: object): Partial<T> {
  return Object.fromEntries(Object.entries(from).filter(([name]) => name in names)) as Partial<T>;
}
