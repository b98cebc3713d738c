import type { CheckFinding } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { readBitmaps } from './bitmaps.ts';
import { imageError } from './corrupt.ts';
import { HostCounts, USE } from './host-counts.ts';
import { L2Counter, type Report } from './l2-counter.ts';
import { SAFE_LIMITS } from './limits.ts';
import { readRefcountTable } from './refcounts.ts';
import { readSnapshotL1, readSnapshots, snapshotTableBytes } from './snapshots.ts';
import { sameHost } from './stage-entries.ts';
import type { StagedPlace } from './stage-place.ts';
import type { Qcow2State } from './state.ts';
import {
  ENTRY_BYTES,
  entryOffset,
  HIGH_COPIED,
  l1Reserved,
  SECTOR_BYTES,
  tableOffset,
  tableReserved,
} from './structures.ts';
import { wordsOf } from './words.ts';

/** What a walk over all metadata found. */
export interface References {
  readonly counted: HostCounts;
  /** The refcount blocks: bytes in the file by index; 0 where there is none, or none that can be read. */
  readonly blocks: Float64Array;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** L2 tables that are read at a time. */
const READ_AHEAD = 8;

/** References to L2 tables: offset (a multiple of 512) plus who refers, so that sorting brings together those to one table. */
const FROM_SNAPSHOT = 0;
const FROM_ACTIVE_COPIED = 1;
const FROM_ACTIVE_SHARED = 2;

/** One L2 table, and the references to it. */
interface TableUse {
  readonly offset: number;
  readonly references: number;
  /** What the active L1 table says of it; 0: only snapshots refer to it. */
  readonly said: number;
}

/**
 * Walks all metadata of an image, each L2 table once however often it is referenced, and counts references to every host cluster.
 * Findings are corruptions of structure; comparing counts is `compareRefcounts`. Reads the file, not what a writer holds unflushed.
 * `keep`: a staging whose references count as well.
 */
export async function countReferences(
  state: Qcow2State,
  keep: StagedPlace | null,
  onFinding: (finding: CheckFinding) => void,
  options?: OperationOptions,
): Promise<References> {
  const report: Report = (message, offset) =>
    onFinding({ severity: 'corruption', message, offset });
  const counted = new HostCounts(state);
  const claim = claimer(state, counted, report);
  claim('header', 0, 1);
  const blocks = await claimRefcounts(state, claim, report);
  const { l1TableOffset, l1Size } = state.header;
  claim('L1 table', l1TableOffset, l1Size * ENTRY_BYTES);
  const uses: number[] = [];
  collectTables(state, state.l1, true, uses, report);
  for (const l1 of await claimSnapshots(state, claim)) {
    collectTables(state, await l1(), false, uses, report);
    options?.signal?.throwIfAborted();
  }
  const tables = Float64Array.from(uses).sort();
  const unreadable = claimTables(state, counted, claim, tables);
  const staged = keep === null ? [] : await claimStaging(state, keep, claim, report);
  await claimBitmaps(state, claim, options);
  const counter = new L2Counter(state, counted, report);
  await walkTables(state, tables, unreadable, counter, options);
  for (const table of staged) await walkStaged(state, table, counter, options);
  return {
    counted,
    blocks,
    allocatedClusters: counter.allocatedClusters,
    fragmentedClusters: counter.fragmentedClusters,
    compressedClusters: counter.compressedClusters,
  };
}

/** Counts a reference to each cluster of a metadata structure; false when it is not where one may be. */
type Claim = (what: string, offset: number, bytes: number) => boolean;

function claimer(state: Qcow2State, counted: HostCounts, report: Report): Claim {
  const { clusterSize } = state.geometry;
  const fileClusters = Math.ceil(state.fileEnd / clusterSize);
  return (what, offset, bytes) => {
    const first = offset / clusterSize;
    const end = first + Math.ceil(bytes / clusterSize);
    if (offset < 0 || offset % clusterSize !== 0 || end > fileClusters) {
      report(`${what} at ${offset} is not in clusters of the file`, offset);
      return false;
    }
    let clear = true;
    for (let cluster = first; cluster < end; cluster++) {
      if (counted.is(cluster, USE.metadata)) {
        report(`${what} overlaps other metadata`, cluster * clusterSize);
        clear = false;
      }
      counted.add(cluster, 1, USE.metadata);
    }
    return clear;
  };
}

/** The refcount table and its blocks. Resolves with where the blocks are. */
async function claimRefcounts(
  state: Qcow2State,
  claim: Claim,
  report: Report,
): Promise<Float64Array> {
  const { refcountTableOffset: offset, refcountTableClusters: clusters } = state.header;
  claim('refcount table', offset, clusters * state.geometry.clusterSize);
  const table = await readRefcountTable(state);
  const blocks = new Float64Array(table.length / 2);
  for (let index = 0; index < blocks.length; index++) {
    const [high, low] = [table[2 * index] as number, table[2 * index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (tableReserved(low))
      report('reserved bits are set in a refcount table entry', offset + ENTRY_BYTES * index);
    const block = tableOffset(high, low);
    if (block !== 0 && claim('refcount block', block, 1)) blocks[index] = block;
  }
  return blocks;
}

/** The snapshot table and the L1 tables it names; resolves with functions that read these. */
async function claimSnapshots(
  state: Qcow2State,
  claim: Claim,
): Promise<(() => Promise<Uint32Array>)[]> {
  const snapshots = await readSnapshots(state);
  if (snapshots.length > 0)
    claim('snapshot table', state.header.snapshotsOffset, snapshotTableBytes(snapshots));
  return snapshots
    .filter(({ l1TableOffset, l1Size }) =>
      claim("snapshot's L1 table", l1TableOffset, l1Size * ENTRY_BYTES),
    )
    .map((snapshot) => () => readSnapshotL1(state, snapshot));
}

async function claimBitmaps(
  state: Qcow2State,
  claim: Claim,
  options?: OperationOptions,
): Promise<void> {
  const directory = await readBitmaps(state);
  if (directory === null) return;
  claim('bitmap directory', directory.offset, directory.length);
  for (const { tableOffset: at, tableSize } of directory.bitmaps) {
    const length = tableSize * ENTRY_BYTES;
    if (length > SAFE_LIMITS.bitmapTable)
      throw imageError('IMAGE_LIMIT', state.label, `bitmap table of ${length} bytes`, at);
    if (!claim('bitmap table', at, length)) continue;
    const bytes = new Uint8Array(length);
    await state.storage.read(hostOffset(at), bytes, options);
    const words = wordsOf(bytes);
    for (let index = 0; index < words.length; index += 2) {
      const offset = entryOffset(words[index] as number, words[index + 1] as number);
      if (offset !== 0) claim('bitmap data', offset, 1);
    }
  }
}

/** Notes which L2 tables an L1 table refers to. */
function collectTables(
  state: Qcow2State,
  l1: Uint32Array,
  active: boolean,
  uses: number[],
  report: Report,
): void {
  for (let index = 0; index < l1.length; index += 2) {
    const [high, low] = [l1[index] as number, l1[index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (l1Reserved(high, low)) report('reserved bits are set in an L1 entry', index * 4);
    const offset = entryOffset(high, low);
    if (offset <= 0) {
      report('L1 entry without a table that can be', index * 4);
      continue;
    }
    const from = active
      ? (high & HIGH_COPIED) !== 0
        ? FROM_ACTIVE_COPIED
        : FROM_ACTIVE_SHARED
      : FROM_SNAPSHOT;
    uses.push(offset + from);
  }
  if (uses.length > SAFE_LIMITS.l2Tables)
    throw imageError('IMAGE_LIMIT', state.label, `${uses.length} references to L2 tables`);
}

/** The tables of sorted references, in the order of the file. */
function* tableUses(sorted: Float64Array): Generator<TableUse> {
  for (let first = 0, end = 0; first < sorted.length; first = end) {
    const use = sorted[first] as number;
    const offset = use - (use % SECTOR_BYTES);
    let said = 0;
    for (; end < sorted.length && (sorted[end] as number) < offset + SECTOR_BYTES; end++) {
      const from = (sorted[end] as number) - offset;
      if (from === FROM_ACTIVE_COPIED) said |= USE.copied;
      if (from === FROM_ACTIVE_SHARED) said |= USE.shared;
    }
    yield { offset, references: end - first, said };
  }
}

/** Counts the references to L2 tables; returns the offsets of those that are none. */
function claimTables(
  state: Qcow2State,
  counted: HostCounts,
  claim: Claim,
  tables: Float64Array,
): ReadonlySet<number> {
  const unreadable = new Set<number>();
  for (const { offset, references, said } of tableUses(tables)) {
    if (claim('L2 table', offset, 1))
      counted.add(offset / state.geometry.clusterSize, references - 1, said);
    else unreadable.add(offset);
  }
  return unreadable;
}

/** An L2 table of a staging that is not the image's own, and the image's at the same place; 0: there is none. */
interface StagedTable {
  readonly offset: number;
  readonly lowerOffset: number;
}

/** Claims the L1 table of a staging and those of its L2 tables that are not the image's. */
async function claimStaging(
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
async function walkStaged(
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

async function walkTables(
  state: Qcow2State,
  tables: Float64Array,
  unreadable: ReadonlySet<number>,
  counter: L2Counter,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const buffers = Array.from({ length: READ_AHEAD }, () => new Uint8Array(clusterSize));
  let group: TableUse[] = [];
  const count = async (): Promise<void> => {
    await Promise.all(
      group.map(({ offset }, index) =>
        state.storage.read(hostOffset(offset), buffers[index] as Uint8Array, options),
      ),
    );
    for (const [index, { offset, references, said }] of group.entries())
      counter.count(wordsOf(buffers[index] as Uint8Array), offset, references, said !== 0);
    group = [];
  };
  for (const use of tableUses(tables)) {
    if (unreadable.has(use.offset)) continue;
    group.push(use);
    if (group.length === READ_AHEAD) await count();
  }
  await count();
}
