import { hostOffset } from '@downfold/units';
import { corrupt, imageError } from './corrupt.ts';
import type { Geometry } from './geometry.ts';
import { HARD_LIMITS } from './limits.ts';
import { MetadataCache } from './metadata-cache.ts';
import { assertNoOverlap, forgetMetadata, registerMetadata } from './overlap.ts';
import { refcountAt, setRefcount } from './refcount-codec.ts';
import type { Qcow2State, RefcountBlock, Refcounts, Release } from './state.ts';
import { ENTRY_BYTES, offsetLow, tableOffset, tableReserved } from './structures.ts';
import { assertClusterInFile } from './tables.ts';
import { wordsOf } from './words.ts';

/** Contiguous host clusters. */
export interface ClusterRun {
  /** Number of the first one. */
  readonly cluster: number;
  readonly count: number;
}

/** Reads the refcount table. @throws ImageError `IMAGE_CORRUPT` when the file ends before it does */
export async function openRefcounts(state: Qcow2State): Promise<Refcounts> {
  assertTableInFile(state);
  return {
    table: await readRefcountTable(state),
    changed: new Set(),
    moved: null,
    blocks: new MetadataCache(state.geometry.clusterSize),
  };
}

function assertTableInFile(state: Qcow2State): void {
  if (!isTableLost(state)) return;
  const problem = `refcount table at ${state.header.refcountTableOffset} reaches past the end of the file`;
  throw corrupt(state.label, `${problem}; repair it first: downfold check -r all`, 48);
}

/** Whether the file ends before its refcount table does. */
export function isTableLost({ header, geometry, fileEnd }: Qcow2State): boolean {
  const { refcountTableOffset: at, refcountTableClusters: clusters } = header;
  return at / geometry.clusterSize + clusters > Math.ceil(fileEnd / geometry.clusterSize);
}

/** The refcount table as words, two an entry; what lies past the end of the file is zero. */
export async function readRefcountTable(state: Qcow2State): Promise<Uint32Array> {
  const { header, geometry } = state;
  const bytes = new Uint8Array(header.refcountTableClusters * geometry.clusterSize);
  await state.storage.read(hostOffset(header.refcountTableOffset), bytes);
  return wordsOf(bytes);
}

/** Byte of a refcount block in the file; 0 when there is none. @throws ImageError `IMAGE_CORRUPT`. */
function blockOffset(state: Qcow2State, table: Uint32Array, index: number): number {
  const [high, low] = [table[2 * index] ?? 0, table[2 * index + 1] ?? 0];
  const at = state.header.refcountTableOffset + ENTRY_BYTES * index;
  if (tableReserved(low))
    throw corrupt(state.label, 'reserved bits are set in a refcount table entry', at);
  const offset = tableOffset(high, low);
  if (offset !== 0)
    assertClusterInFile(state, offset, state.geometry.clusterSize, 'refcount block', at);
  return offset;
}

/** Refcount block number `index`; null when there is none. */
function loadBlock(
  state: Qcow2State,
  refcounts: Refcounts,
  index: number,
): Promise<RefcountBlock | null> {
  return refcounts.blocks.load(index, async () => {
    const offset = blockOffset(state, refcounts.table, index);
    if (offset === 0) return null;
    const bytes = new Uint8Array(state.geometry.clusterSize);
    await state.storage.read(hostOffset(offset), bytes);
    return { index, offset, bytes, changed: false, held: null };
  });
}

/**
 * Counts up to `want` contiguous free clusters from cluster `from` on as used (refcount 1). Adds refcount blocks, and a larger
 * refcount table, where there are none.
 */
export async function takeClusters(
  state: Qcow2State,
  refcounts: Refcounts,
  from: number,
  want: number,
): Promise<ClusterRun> {
  const { refcountsPerBlock, refcountBits } = state.geometry;
  for (let cluster = from; ; ) {
    const index = Math.floor(cluster / refcountsPerBlock);
    const block = await loadBlock(state, refcounts, index);
    if (block === null) {
      await addBlock(state, refcounts, index);
      continue;
    }
    const first = firstFree(block, cluster % refcountsPerBlock, state.geometry);
    if (first === refcountsPerBlock) {
      cluster = (index + 1) * refcountsPerBlock;
      continue;
    }
    const most = Math.min(want, refcountsPerBlock - first);
    let count = 0;
    while (count < most && isFree(block, first + count, refcountBits))
      setRefcount(block.bytes, first + count++, refcountBits, 1);
    refcounts.blocks.touch(block);
    return { cluster: index * refcountsPerBlock + first, count };
  }
}

/**
 * As `takeClusters`, without waiting: number of the first of `want` clusters, which one block that is in memory counts. Null: that would have to wait, or
 * take fewer.
 */
export function takeAtOnce(
  { geometry }: Qcow2State,
  { blocks }: Refcounts,
  from: number,
  want: number,
): number | null {
  const { refcountsPerBlock, refcountBits } = geometry;
  const index = Math.floor(from / refcountsPerBlock);
  const block = blocks.get(index);
  if (block === undefined) return null;
  const first = firstFree(block, from % refcountsPerBlock, geometry);
  const end = first + want;
  if (end > refcountsPerBlock) return null;
  for (let at = first + 1; at < end; at++) if (!isFree(block, at, refcountBits)) return null;
  for (let at = first; at < end; at++) setRefcount(block.bytes, at, refcountBits, 1);
  blocks.touch(block);
  return index * refcountsPerBlock + first;
}

/** The first entry of a block from `from` on that is free; behind the last one: none is. */
function firstFree(
  block: RefcountBlock,
  from: number,
  { refcountsPerBlock, refcountBits }: Geometry,
): number {
  let first = from;
  while (first < refcountsPerBlock && !isFree(block, first, refcountBits)) first++;
  return first;
}

function isFree({ bytes, held }: RefcountBlock, at: number, bits: number): boolean {
  return refcountAt(bytes, at, bits) === 0 && held?.[at] !== 1;
}

/**
 * As `takeClusters`, but all `want` clusters, more than one block counts: behind everything counted so far, with new blocks in
 * front of them.
 */
export async function takeLongRun(
  state: Qcow2State,
  refcounts: Refcounts,
  want: number,
): Promise<ClusterRun> {
  const blocks = Math.ceil(want / (state.geometry.refcountsPerBlock - 1));
  for (;;) {
    let first = refcounts.table.length / 2;
    while (first > 0 && !hasBlock(refcounts, first - 1)) first--;
    if (first + blocks <= refcounts.table.length / 2)
      return { cluster: await addBlocks(state, refcounts, first, want), count: want };
    await growTable(state, refcounts, first + blocks);
  }
}

/**
 * Lowers the refcounts of released clusters. Those that reach zero are held: free, but not to be taken yet. Resolves with the
 * blocks that hold some.
 */
export async function applyReleases(
  state: Qcow2State,
  refcounts: Refcounts,
  releases: readonly Release[],
): Promise<ReadonlySet<RefcountBlock>> {
  const { refcountsPerBlock, refcountBits, clusterSize } = state.geometry;
  const holding = new Set<RefcountBlock>();
  for (const { offset, clusters, references } of releases) {
    const end = offset / clusterSize + clusters;
    for (let cluster = offset / clusterSize; cluster < end; ) {
      const index = Math.floor(cluster / refcountsPerBlock);
      const block = await loadBlock(state, refcounts, index);
      const stop = Math.min(end, (index + 1) * refcountsPerBlock);
      for (; cluster < stop; cluster++) {
        const at = cluster % refcountsPerBlock;
        const count = block === null ? 0 : refcountAt(block.bytes, at, refcountBits);
        if (block === null || count < references)
          throw corrupt(state.label, `cluster in use has refcount ${count}`, cluster * clusterSize);
        setRefcount(block.bytes, at, refcountBits, count - references);
        refcounts.blocks.touch(block);
        if (count > references) continue;
        forgetMetadata(state, cluster * clusterSize);
        forgetCompressed(state, cluster);
        block.held ??= new Uint8Array(refcountsPerBlock);
        block.held[at] = 1;
        holding.add(block);
      }
    }
  }
  return holding;
}

/** What is compressed next no longer goes to a cluster that is free. */
function forgetCompressed({ writer, geometry }: Qcow2State, cluster: number): void {
  if (writer !== null && Math.floor(writer.compressedAt / geometry.clusterSize) === cluster)
    writer.compressedAt = 0;
}

/** The refcount of one cluster. */
export async function refcountOf(
  state: Qcow2State,
  refcounts: Refcounts,
  cluster: number,
): Promise<number> {
  const { refcountsPerBlock, refcountBits } = state.geometry;
  const block = await loadBlock(state, refcounts, Math.floor(cluster / refcountsPerBlock));
  return block === null ? 0 : refcountAt(block.bytes, cluster % refcountsPerBlock, refcountBits);
}

/** Raises the refcount of a cluster in use by one; the caller knows that it fits. */
export async function addReference(
  state: Qcow2State,
  refcounts: Refcounts,
  cluster: number,
): Promise<void> {
  const { refcountsPerBlock, refcountBits, clusterSize } = state.geometry;
  const block = await loadBlock(state, refcounts, Math.floor(cluster / refcountsPerBlock));
  if (block === null)
    throw corrupt(state.label, 'cluster in use has refcount 0', cluster * clusterSize);
  const at = cluster % refcountsPerBlock;
  setRefcount(block.bytes, at, refcountBits, refcountAt(block.bytes, at, refcountBits) + 1);
  refcounts.blocks.touch(block);
}

function hasBlock(refcounts: Refcounts, index: number): boolean {
  return (refcounts.table[2 * index] ?? 0) !== 0 || (refcounts.table[2 * index + 1] ?? 0) !== 0;
}

/** A new block in the first cluster it counts. */
async function addBlock(state: Qcow2State, refcounts: Refcounts, index: number): Promise<void> {
  if (2 * index >= refcounts.table.length) await growTable(state, refcounts, index + 1);
  if (!hasBlock(refcounts, index)) await addBlocks(state, refcounts, index, 0);
}

/**
 * New blocks from number `first` on, in the first clusters they count, as many as it takes to count `want` clusters behind
 * them. Returns the number of the first of those. The table must be long enough.
 */
async function addBlocks(
  state: Qcow2State,
  refcounts: Refcounts,
  first: number,
  want: number,
): Promise<number> {
  await assertBlocksFit(state, first, want);
  return putBlocks(state, refcounts, first, want);
}

/** How many blocks count `want` clusters behind them. */
function blocksFor({ geometry }: Qcow2State, want: number): number {
  return Math.max(1, Math.ceil(want / (geometry.refcountsPerBlock - 1)));
}

/** Nothing is in use where no block counts it, unless the image is corrupt. */
async function assertBlocksFit(state: Qcow2State, first: number, want: number): Promise<void> {
  const { clusterSize, refcountsPerBlock } = state.geometry;
  const bytes = (blocksFor(state, want) + want) * clusterSize;
  await assertNoOverlap(state, first * refcountsPerBlock * clusterSize, bytes, null);
}

/** As `addBlocks`, once they are known to fit: at once, so that a flush sees all of it or nothing. */
function putBlocks(state: Qcow2State, refcounts: Refcounts, first: number, want: number): number {
  const { clusterSize, refcountsPerBlock, refcountBits } = state.geometry;
  const blocks = blocksFor(state, want);
  const start = first * refcountsPerBlock;
  for (let block = 0; block < blocks; block++) {
    const bytes = new Uint8Array(clusterSize);
    const used = Math.min(refcountsPerBlock, blocks + want - block * refcountsPerBlock);
    for (let at = 0; at < used; at++) setRefcount(bytes, at, refcountBits, 1);
    const offset = (start + block) * clusterSize;
    refcounts.blocks.touch({ index: first + block, offset, bytes, changed: true, held: null });
    refcounts.table[2 * (first + block)] = Math.floor(offset / 2 ** 32);
    refcounts.table[2 * (first + block) + 1] = offsetLow(offset);
    refcounts.changed.add(first + block);
    registerMetadata(state, offset, 'refcount block');
  }
  state.fileEnd = Math.max(state.fileEnd, (start + blocks + want) * clusterSize);
  return start + blocks;
}

/**
 * Moves the refcount table, made longer than `least` entries, to fresh clusters behind everything that the old one could
 * count, with the blocks that count the new place.
 */
async function growTable(state: Qcow2State, refcounts: Refcounts, least: number): Promise<void> {
  const { clusterSize, refcountsPerBlock } = state.geometry;
  const first = refcounts.table.length / 2;
  const sizeFor = (blocks: number): number =>
    Math.ceil((Math.max(first + blocks, least) * 1.5 * ENTRY_BYTES) / clusterSize);
  let blocks = 1;
  while (sizeFor(blocks) > blocks * (refcountsPerBlock - 1)) blocks++;
  const clusters = sizeFor(blocks);
  if (clusters * clusterSize > HARD_LIMITS.refcountTable)
    throw imageError('IMAGE_NO_SPACE', state.label, 'the refcount table cannot grow any more');
  await assertBlocksFit(state, first, clusters);
  // from here on at once: a flush must not find a longer table that has no new place yet
  const table = new Uint32Array((clusters * clusterSize) / 4);
  table.set(refcounts.table);
  refcounts.table = table;
  const cluster = putBlocks(state, refcounts, first, clusters);
  for (let at = cluster; at < cluster + clusters; at++)
    registerMetadata(state, at * clusterSize, 'refcount table');
  // a table that was to move there, and never will
  if (refcounts.moved !== null) state.writer?.releases.push({ ...refcounts.moved, references: 1 });
  refcounts.moved = { offset: cluster * clusterSize, clusters };
}
