import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { corrupt } from './corrupt.ts';
import type { MetadataKind, Qcow2State } from './state.ts';
import {
  entryOffset,
  INCOMPATIBLE,
  INCOMPATIBLE_AT,
  SECTOR_BYTES,
  tableOffset,
} from './structures.ts';

/**
 * Host clusters that hold metadata, by cluster number: what QEMU's `overlap-check=cached` protects. Built once from the tables
 * in memory, and kept up to date by those who allocate and release metadata (rule W13).
 */
export function metadataMap(
  state: Qcow2State,
  refcountTable: Uint32Array,
): Map<number, MetadataKind> {
  const { header, geometry, l1 } = state;
  const map = new Map<number, MetadataKind>();
  const range = (kind: MetadataKind, offset: number, bytes: number): void => {
    for (let at = offset; at < offset + bytes; at += geometry.clusterSize)
      map.set(Math.floor(at / geometry.clusterSize), kind);
  };
  for (let index = 0; index < l1.length; index += 2) {
    const offset = entryOffset(l1[index] as number, l1[index + 1] as number);
    if (offset > 0) range('L2 table', offset, 1);
  }
  for (let index = 0; index < refcountTable.length; index += 2) {
    const offset = tableOffset(refcountTable[index] as number, refcountTable[index + 1] as number);
    if (offset > 0) range('refcount block', offset, 1);
  }
  range('header', 0, 1);
  range('L1 table', header.l1TableOffset, header.l1Size * 8);
  range(
    'refcount table',
    header.refcountTableOffset,
    header.refcountTableClusters * geometry.clusterSize,
  );
  return map;
}

/** Notes that the cluster at `offset` holds metadata from now on. */
export function registerMetadata(state: Qcow2State, offset: number, kind: MetadataKind): void {
  state.writer?.metadata.set(offset / state.geometry.clusterSize, kind);
}

/** Notes that the cluster at `offset` holds metadata no more. */
export function forgetMetadata(state: Qcow2State, offset: number): void {
  state.writer?.metadata.delete(offset / state.geometry.clusterSize);
}

/**
 * Rule W13: asserts before a write that [offset, offset + length) holds what the writer means to write: `kind`, or guest
 * data when null. On a violation marks the image corrupt (W10), durably, and refuses every later write.
 */
export async function assertNoOverlap(
  state: Qcow2State,
  offset: number,
  length: number,
  kind: MetadataKind | null,
): Promise<void> {
  const { writer } = state;
  const { clusterSize } = state.geometry;
  const last = Math.floor((offset + length - 1) / clusterSize);
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
    const found = writer?.metadata.get(cluster) ?? null;
    if (found === kind && cluster !== 0) continue;
    if (kind === 'header' && cluster === 0) continue;
    await markCorrupt(state);
    const meant = kind ?? 'guest data';
    throw corrupt(
      state.label,
      `a write of ${meant} would overwrite ${found ?? 'other clusters'}; the image was marked corrupt`,
      cluster * clusterSize,
    );
  }
}

/** Rule W10: sets the corrupt bit, durably, in one sector; version 2 images have none. The image takes no more writes. */
async function markCorrupt(state: Qcow2State): Promise<void> {
  if (state.writer !== null) state.writer.poisoned = true;
  if (state.header.version < 3) return;
  const sector = state.headerCluster.slice(0, SECTOR_BYTES);
  const at = INCOMPATIBLE_AT + 7;
  sector[at] = (sector[at] as number) | INCOMPATIBLE.corrupt;
  await state.storage.write(hostOffset(0), sector, { what: 'header' });
  await state.storage.flush(BARRIER.corruptBit);
}
