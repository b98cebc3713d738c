import type { CheckFinding } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { readBitmaps } from './bitmaps.ts';
import { HostCounts } from './host-counts.ts';
import { refcountAt } from './refcount-codec.ts';
import { openRefcounts } from './refcounts.ts';
import { readSnapshotL1, readSnapshots, snapshotTableBytes } from './snapshots.ts';
import { sameHost } from './stage-entries.ts';
import type { StagedPlace } from './stage-place.ts';
import type { Qcow2State } from './state.ts';
import {
  compressedBytes,
  compressedOffset,
  ENTRY_BYTES,
  entryOffset,
  HIGH_COMPRESSED,
  HIGH_COPIED,
  LOW_ZERO,
  l1Reserved,
  l2Reserved,
  tableOffset,
  tableReserved,
} from './structures.ts';
import { wordsOf } from './words.ts';

/** What a walk over all metadata found: who counts how much, and how much is referenced. */
export interface References {
  /** Refcounts as stored. */
  readonly stored: HostCounts;
  /** References that the walk met. */
  readonly counted: HostCounts;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** A copied flag that does not agree with the refcount as stored. */
export interface WrongFlag {
  readonly cluster: number;
  readonly copied: boolean;
}

/** Takes a finding; `flag` when it is of a copied flag. */
type OnFinding = (finding: CheckFinding, flag?: WrongFlag) => void;

/** The walk's state. */
class Walk {
  readonly state: Qcow2State;
  readonly stored: HostCounts;
  readonly counted: HostCounts;
  readonly report: (message: string, offset: number, flag?: WrongFlag) => void;
  readonly signal: AbortSignal | undefined;
  /** Clusters that hold metadata: nothing else may point there. */
  readonly metadata: Set<number> = new Set();
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;

  constructor(state: Qcow2State, finding: OnFinding, options?: OperationOptions) {
    this.state = state;
    this.stored = new HostCounts(state.fileEnd / state.geometry.clusterSize);
    this.counted = new HostCounts(state.fileEnd / state.geometry.clusterSize);
    this.report = (message, offset, flag) =>
      finding({ severity: 'corruption', message, offset }, flag);
    this.signal = options?.signal;
  }

  /** Counts a reference to each cluster of a metadata structure; false when it is not where one may be. */
  claim(what: string, offset: number, bytes: number): boolean {
    const { clusterSize } = this.state.geometry;
    if (offset < 0 || offset % clusterSize !== 0 || offset + 1 > this.state.fileEnd) {
      this.report(`${what} at ${offset} is not a cluster of the file`, offset);
      return false;
    }
    let clear = true;
    for (let cluster = offset / clusterSize; cluster * clusterSize < offset + bytes; cluster++) {
      if (this.metadata.has(cluster)) {
        this.report(`${what} overlaps other metadata`, cluster * clusterSize);
        clear = false;
      }
      this.metadata.add(cluster);
      this.counted.add(cluster, 1);
    }
    return clear;
  }
}

/**
 * Walks all metadata of an image, each L2 table once however often it is referenced, and counts references to every host cluster.
 * Findings are corruptions of structure; comparing counts is the caller's. Reads the file, not what a writer holds unflushed.
 * `keep`: a staging whose references count as well.
 */
export async function countReferences(
  state: Qcow2State,
  keep: StagedPlace | null,
  onFinding: OnFinding,
  options?: OperationOptions,
): Promise<References> {
  const walk = new Walk(state, onFinding, options);
  const { header } = state;
  walk.claim('header', 0, 1);
  await walkRefcounts(walk);
  walk.claim('L1 table', header.l1TableOffset, header.l1Size * ENTRY_BYTES);
  const tables = new Map<number, number>();
  collectTables(walk, state.l1, tables);
  const active = new Map(tables);
  for (const l1 of await walkSnapshots(walk)) collectTables(walk, l1, tables);
  for (const [offset, references] of tables) claimTable(walk, offset, references);
  const staged = keep === null ? [] : await claimStaging(walk, keep);
  await walkBitmaps(walk);
  for (const [offset, references] of tables)
    await walkL2(walk, offset, references, active.has(offset));
  for (const { offset, lowerOffset } of staged)
    await walkL2(walk, offset, 1, false, await readTable(walk, lowerOffset));
  checkL1Copied(walk);
  return walk;
}

async function walkRefcounts(walk: Walk): Promise<void> {
  const { state } = walk;
  const { header, geometry } = state;
  walk.claim(
    'refcount table',
    header.refcountTableOffset,
    header.refcountTableClusters * geometry.clusterSize,
  );
  const { table } = await openRefcounts(state);
  const bytes = new Uint8Array(geometry.clusterSize);
  for (let index = 0; 2 * index < table.length; index++) {
    const [high, low] = [table[2 * index] as number, table[2 * index + 1] as number];
    if (high === 0 && low === 0) continue;
    walk.signal?.throwIfAborted();
    const at = header.refcountTableOffset + ENTRY_BYTES * index;
    if (tableReserved(low)) walk.report('reserved bits are set in a refcount table entry', at);
    const offset = tableOffset(high, low);
    if (!walk.claim('refcount block', offset, 1)) continue;
    await state.storage.read(hostOffset(offset), bytes);
    const first = index * geometry.refcountsPerBlock;
    for (let entry = 0; entry < geometry.refcountsPerBlock; entry++) {
      const count = refcountAt(bytes, entry, geometry.refcountBits);
      if (count !== 0) walk.stored.add(first + entry, count);
    }
  }
}

async function walkSnapshots(walk: Walk): Promise<Uint32Array[]> {
  const { state } = walk;
  const snapshots = await readSnapshots(state);
  if (snapshots.length > 0)
    walk.claim('snapshot table', state.header.snapshotsOffset, snapshotTableBytes(snapshots));
  const tables: Uint32Array[] = [];
  for (const snapshot of snapshots) {
    walk.claim("snapshot's L1 table", snapshot.l1TableOffset, snapshot.l1Size * ENTRY_BYTES);
    tables.push(await readSnapshotL1(state, snapshot));
  }
  return tables;
}

async function walkBitmaps(walk: Walk): Promise<void> {
  const { state } = walk;
  const directory = await readBitmaps(state);
  if (directory === null) return;
  walk.claim('bitmap directory', directory.offset, directory.length);
  for (const { tableOffset: at, tableSize } of directory.bitmaps) {
    if (!walk.claim('bitmap table', at, tableSize * ENTRY_BYTES)) continue;
    const bytes = new Uint8Array(tableSize * ENTRY_BYTES);
    await state.storage.read(hostOffset(at), bytes);
    const words = wordsOf(bytes);
    for (let index = 0; index < words.length; index += 2) {
      const offset = entryOffset(words[index] as number, words[index + 1] as number);
      if (offset !== 0) walk.claim('bitmap data', offset, 1);
    }
  }
}

/** Notes how often each L2 table is referenced by an L1 table. */
function collectTables(walk: Walk, l1: Uint32Array, tables: Map<number, number>): void {
  for (let index = 0; index < l1.length; index += 2) {
    const [high, low] = [l1[index] as number, l1[index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (l1Reserved(high, low)) walk.report('reserved bits are set in an L1 entry', index * 4);
    const offset = entryOffset(high, low);
    if (offset !== 0) tables.set(offset, (tables.get(offset) ?? 0) + 1);
  }
}

function claimTable(walk: Walk, offset: number, references: number): void {
  if (walk.claim('L2 table', offset, 1))
    walk.counted.add(offset / walk.state.geometry.clusterSize, references - 1);
}

/** An L2 table of a staging that is not the image's own, and the image's at the same place, 0 for none. */
interface StagedTable {
  readonly offset: number;
  readonly lowerOffset: number;
}

/** Claims the L1 table of a staging and those of its L2 tables that are not the image's. */
async function claimStaging(walk: Walk, keep: StagedPlace): Promise<readonly StagedTable[]> {
  const { state } = walk;
  const bytes = new Uint8Array(keep.l1Size * ENTRY_BYTES);
  if (!walk.claim("staging's L1 table", keep.l1Offset, bytes.length)) return [];
  await state.storage.read(hostOffset(keep.l1Offset), bytes);
  const l1 = wordsOf(bytes);
  const own: StagedTable[] = [];
  for (let at = 0; at < l1.length; at += 2) {
    if (sameHost(l1, state.l1, at)) continue;
    const [high, low] = [l1[at] as number, l1[at + 1] as number];
    if (l1Reserved(high, low))
      walk.report("reserved bits are set in an entry of a staging's L1 table", at * 4);
    const offset = entryOffset(high, low);
    if (walk.claim("staging's L2 table", offset, 1))
      own.push({ offset, lowerOffset: entryOffset(state.l1[at] ?? 0, state.l1[at + 1] ?? 0) });
  }
  return own;
}

/** The L2 table at `offset` as words; null when it is not where one may be. */
async function readTable(walk: Walk, offset: number): Promise<Uint32Array | null> {
  const { storage, geometry, fileEnd } = walk.state;
  if (offset <= 0 || offset % geometry.clusterSize !== 0 || offset >= fileEnd) return null;
  const bytes = new Uint8Array(geometry.clusterSize);
  await storage.read(hostOffset(offset), bytes);
  return wordsOf(bytes);
}

/** Counts what an L2 table refers to; of a staging's, what `lower`, the image's table at the same place, does not. */
async function walkL2(
  walk: Walk,
  offset: number,
  references: number,
  active: boolean,
  lower: Uint32Array | null = null,
): Promise<void> {
  const { geometry } = walk.state;
  walk.signal?.throwIfAborted();
  const words = await readTable(walk, offset);
  if (words === null) return;
  let next = 0;
  for (let index = 0; index < words.length; index += geometry.entryWords) {
    const [high, low] = [words[index] as number, words[index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (lower !== null && sameHost(words, lower, index)) continue;
    const at = offset + index * 4;
    if (high & HIGH_COMPRESSED) {
      countCompressed(walk, high, low, references, at);
      if (active) {
        walk.allocatedClusters++;
        walk.compressedClusters++;
        walk.fragmentedClusters++;
      }
      continue;
    }
    if (l2Reserved(high, low, geometry.extendedL2))
      walk.report('reserved bits are set in an L2 entry', at);
    const host = entryOffset(high, low);
    if (host === 0) continue;
    if (active) {
      walk.allocatedClusters++;
      if (next !== 0 && host !== next) walk.fragmentedClusters++;
      next = host + geometry.clusterSize;
    }
    countData(
      walk,
      host,
      references,
      at,
      active,
      (high & HIGH_COPIED) !== 0,
      (low & LOW_ZERO) !== 0,
    );
  }
}

function countData(
  walk: Walk,
  host: number,
  references: number,
  at: number,
  active: boolean,
  copied: boolean,
  zero: boolean,
): void {
  const { clusterSize } = walk.state.geometry;
  if (host < 0 || host % clusterSize !== 0) {
    walk.report(`L2 entry points to ${host}, not a cluster`, at);
    return;
  }
  const cluster = host / clusterSize;
  if (host >= walk.state.fileEnd && !zero)
    walk.report(`L2 entry points to ${host}, past the end of the file`, at);
  if (walk.metadata.has(cluster)) walk.report(`L2 entry points to metadata at ${host}`, at);
  walk.counted.add(cluster, references);
  if (active && copied !== (walk.stored.get(cluster) === 1))
    walk.report(
      `the copied flag of an L2 entry is wrong: refcount ${walk.stored.get(cluster)}`,
      at,
      { cluster, copied },
    );
}

function countCompressed(
  walk: Walk,
  high: number,
  low: number,
  references: number,
  at: number,
): void {
  const { clusterBits, clusterSize } = walk.state.geometry;
  const offset = compressedOffset(high, low, clusterBits);
  if (high & HIGH_COPIED) walk.report('compressed cluster with the copied flag', at);
  if (offset < 0 || offset >= walk.state.fileEnd) {
    walk.report(`compressed cluster at ${offset} lies past the end of the file`, at);
    return;
  }
  const end = offset + compressedBytes(high, low, clusterBits);
  for (let cluster = Math.floor(offset / clusterSize); cluster * clusterSize < end; cluster++) {
    if (walk.metadata.has(cluster)) walk.report('compressed cluster in metadata', at);
    walk.counted.add(cluster, references);
  }
}

/** The copied flag of active L1 entries says that the table has refcount 1. */
function checkL1Copied(walk: Walk): void {
  const { l1, geometry, header } = walk.state;
  for (let index = 0; index < l1.length; index += 2) {
    const high = l1[index] as number;
    const offset = entryOffset(high, l1[index + 1] as number);
    if (offset <= 0) continue;
    const cluster = Math.floor(offset / geometry.clusterSize);
    const copied = (high & HIGH_COPIED) !== 0;
    if (copied !== (walk.stored.get(cluster) === 1))
      walk.report('the copied flag of an L1 entry is wrong', header.l1TableOffset + index * 4, {
        cluster,
        copied,
      });
  }
}
