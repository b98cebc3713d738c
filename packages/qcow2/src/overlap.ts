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
import { usedWords } from './words.ts';
import { inTurn, writerOf } from './writer.ts';

/** The metadata that every image has, by cluster number, from the tables in memory. */
export function metadataMap(
  state: Qcow2State,
  refcountTable: Uint32Array,
): Map<number, MetadataKind> {
  const { header, geometry, l1 } = state;
  const map = new Map<number, MetadataKind>();
  for (let index = 0, end = usedWords(l1); index < end; index += 2) {
    const offset = entryOffset(l1[index] as number, l1[index + 1] as number);
    if (offset > 0) map.set(Math.floor(offset / geometry.clusterSize), 'L2 table');
  }
  for (let index = 0, end = usedWords(refcountTable); index < end; index += 2) {
    const offset = tableOffset(refcountTable[index] as number, refcountTable[index + 1] as number);
    if (offset === 0) continue;
    const cluster = Math.floor(offset / geometry.clusterSize);
    // each entry would be searched for free clusters, however short the file is
    if (map.get(cluster) === 'refcount block')
      throw corrupt(state.label, 'refcount table names a refcount block twice', offset);
    map.set(cluster, 'refcount block');
  }
  protect(map, state, 'header', 0, 1);
  protect(map, state, 'L1 table', header.l1TableOffset, header.l1Size * 8);
  protect(
    map,
    state,
    'refcount table',
    header.refcountTableOffset,
    header.refcountTableClusters * geometry.clusterSize,
  );
  return map;
}

/** Notes that the clusters of [offset, offset + bytes) hold metadata. */
export function protect(
  map: Map<number, MetadataKind>,
  state: Qcow2State,
  kind: MetadataKind,
  offset: number,
  bytes: number,
): void {
  const { clusterSize } = state.geometry;
  for (let at = offset; at < offset + bytes; at += clusterSize)
    map.set(Math.floor(at / clusterSize), kind);
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
 * data when null. On a violation marks the image corrupt (W10), durably, and refuses every later write. What is protected is
 * what QEMU's `overlap-check=cached` protects. Of `header`: to be called in the header's turn.
 */
export async function assertNoOverlap(
  state: Qcow2State,
  offset: number,
  length: number,
  kind: MetadataKind | null,
): Promise<void> {
  const cluster = overlapIn(state, offset, length, kind);
  if (cluster === null) return;
  const found = writerOf(state).metadata.get(cluster) ?? 'other clusters';
  const problem = corrupt(
    state.label,
    `a write of ${kind ?? 'guest data'} would overwrite ${found}; the image was marked corrupt`,
    cluster * state.geometry.clusterSize,
  );
  writerOf(state).failure = problem;
  // version 2 has no such mark
  if (state.header.version >= 3)
    await (kind === 'header'
      ? markCorrupt(state)
      : inTurn(state, 'header', () => markCorrupt(state)));
  throw problem;
}

/** The first cluster of [offset, offset + length) that holds something else than `kind`; null: there is none, which `assertNoOverlap` would find too. */
export function overlapIn(
  state: Qcow2State,
  offset: number,
  length: number,
  kind: MetadataKind | null,
): number | null {
  const { metadata } = writerOf(state);
  const { clusterSize } = state.geometry;
  const last = Math.floor((offset + length - 1) / clusterSize);
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++)
    if ((metadata.get(cluster) ?? null) !== kind) return cluster;
  return null;
}

/** Rule W10: sets the corrupt bit, durably, in one sector. To be called in the header's turn. */
async function markCorrupt(state: Qcow2State): Promise<void> {
  const sector = state.headerCluster.subarray(0, SECTOR_BYTES);
  // set in memory first: no later write of the header may take it away
  const at = INCOMPATIBLE_AT + 7;
  sector[at] = (sector[at] as number) | INCOMPATIBLE.corrupt;
  await state.storage.write(hostOffset(0), sector.slice(), { what: 'header' });
  await state.storage.flush(BARRIER.corruptBit);
}
