import type { CheckFinding } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { type Claim, claimBitmaps, claimer, claimRefcounts, claimSnapshots } from './claims.ts';
import { HostCounts } from './host-counts.ts';
import { L2Counter, type Report } from './l2-counter.ts';
import { type Overlain, readOverlain } from './overlain.ts';
import { readSnapshotL1 } from './snapshots.ts';
import type { StagedPlace } from './stage-place.ts';
import { claimStaging, walkStaged } from './staged-references.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES } from './structures.ts';
import { collectTables, type TableUse, tableUses } from './table-uses.ts';
import { wordsOf } from './words.ts';

/** What a walk over all metadata found. */
export interface References {
  readonly counted: HostCounts;
  /** The refcount blocks: bytes in the file by index; 0 where there is none, or none that can be read. */
  readonly blocks: Float64Array;
  /** Nothing is wrong with where the refcount table and its blocks lie, and nothing else refers to their clusters, or shows them. */
  readonly sound: boolean;
  /** References from L1 tables to L2 tables, sorted, for `tableUses`; the offsets of those that are no tables. */
  readonly tables: Float64Array;
  readonly unreadable: ReadonlySet<number>;
  /** What those among them refer to that lie in the file all the same. */
  readonly overlain: Overlain;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** Options of a walk. */
export interface CountOptions extends OperationOptions {
  /** Also the refcount table and its blocks (default); they are left out when they are to be replaced. */
  readonly refcounts?: boolean;
}

/** L2 tables that are read at a time. */
const READ_AHEAD = 8;

/**
 * Walks all metadata of an image, each L2 table once however often it is referenced, and counts references to every host cluster.
 * Findings are corruptions of structure; comparing counts is `compareRefcounts`. Reads the file, not what a writer holds unflushed.
 * `keep`: a staging whose references count as well.
 */
export async function countReferences(
  state: Qcow2State,
  keep: StagedPlace | null,
  onFinding: (finding: CheckFinding) => void,
  options?: CountOptions,
): Promise<References> {
  const report: Report = (message, offset) =>
    onFinding({ severity: 'corruption', message, offset });
  const counted = new HostCounts(state);
  const claim = claimer(state, counted, report);
  claim('header', 0, 1);
  const { blocks, alone } =
    options?.refcounts === false ? NO_REFCOUNTS : await claimRefcounts(state, claim, report);
  const { l1TableOffset, l1Size } = state.header;
  claim('L1 table', l1TableOffset, l1Size * ENTRY_BYTES);
  const { encryption } = state.header;
  if (encryption !== null) claim('encryption header', encryption.offset, encryption.length);
  const uses: number[] = [];
  collectTables(state, state.l1, l1TableOffset, true, uses, report);
  for (const snapshot of await claimSnapshots(state, claim)) {
    options?.signal?.throwIfAborted();
    const l1 = await readSnapshotL1(state, snapshot);
    collectTables(state, l1, snapshot.l1TableOffset, false, uses, report);
  }
  const tables = Float64Array.from(uses).sort();
  const unreadable = claimTables(state, counted, claim, tables);
  const staged = keep === null ? [] : await claimStaging(state, keep, claim, report);
  await claimBitmaps(state, claim, options);
  const counter = new L2Counter(state, counted, report);
  await walkTables(state, tables, unreadable, counter, options);
  const overlain = await readOverlain(state, unreadable, counted, options);
  for (const table of staged) await walkStaged(state, table, counter, options);
  return {
    counted,
    blocks,
    sound: alone && ownClusters(state, counted, overlain, blocks),
    tables,
    unreadable,
    overlain,
    allocatedClusters: counter.allocatedClusters,
    fragmentedClusters: counter.fragmentedClusters,
    compressedClusters: counter.compressedClusters,
  };
}

const NO_REFCOUNTS = { blocks: new Float64Array(), alone: true };

/** Whether the refcount table and its blocks are all that their clusters are used for. */
function ownClusters(
  state: Qcow2State,
  counted: HostCounts,
  { metadata }: Overlain,
  blocks: Float64Array,
): boolean {
  if (blocks.length === 0) return true;
  const { clusterSize } = state.geometry;
  const { refcountTableOffset, refcountTableClusters } = state.header;
  const own = (cluster: number): boolean => counted.count(cluster) === 1 && !metadata.has(cluster);
  const first = refcountTableOffset / clusterSize;
  for (let at = first; at < first + refcountTableClusters; at++) if (!own(at)) return false;
  return blocks.every((offset) => offset === 0 || own(offset / clusterSize));
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

/** Reads the tables, some at a time, and counts what they refer to. */
async function walkTables(
  state: Qcow2State,
  tables: Float64Array,
  unreadable: ReadonlySet<number>,
  counter: L2Counter,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const buffers = Array.from(
    { length: Math.min(READ_AHEAD, tables.length) },
    () => new Uint8Array(clusterSize),
  );
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
