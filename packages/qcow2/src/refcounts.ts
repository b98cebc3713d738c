import { hostOffset } from '@downfold/units';
import { corrupt, imageError } from './corrupt.ts';
import { HARD_LIMITS } from './limits.ts';
import { registerMetadata } from './overlap.ts';
import { largestRefcount, refcountAt, setRefcount } from './refcount-codec.ts';
import type { Qcow2State, RefcountBlock, Refcounts } from './state.ts';
import { ENTRY_BYTES, offsetLow, tableOffset, tableReserved } from './structures.ts';
import { assertClusterInFile } from './tables.ts';
import { wordsOf } from './words.ts';

/** Clean refcount blocks kept in memory; dirty ones stay until they are flushed. */
const CACHE_BYTES = 8 << 20;

/** Reads the refcount table. */
export async function openRefcounts(state: Qcow2State): Promise<Refcounts> {
  const { header, geometry } = state;
  const bytes = new Uint8Array(header.refcountTableClusters * geometry.clusterSize);
  await state.storage.read(hostOffset(header.refcountTableOffset), bytes);
  return { table: wordsOf(bytes), changed: new Set(), moved: null, blocks: new Map() };
}

/** Byte of a refcount block in the file; 0 when there is none. @throws ImageError `IMAGE_CORRUPT`. */
export function blockOffset(state: Qcow2State, table: Uint32Array, blockIndex: number): number {
  const [high, low] = [table[2 * blockIndex] ?? 0, table[2 * blockIndex + 1] ?? 0];
  const at = state.header.refcountTableOffset + ENTRY_BYTES * blockIndex;
  if (tableReserved(low))
    throw corrupt(state.label, 'reserved bits are set in a refcount table entry', at);
  const offset = tableOffset(high, low);
  if (offset !== 0)
    assertClusterInFile(state, offset, state.geometry.clusterSize, 'refcount block', at);
  return offset;
}

/** The block that counts cluster `blockIndex * refcountsPerBlock` and those after it; null when there is none. */
export async function loadBlock(
  state: Qcow2State,
  refcounts: Refcounts,
  blockIndex: number,
): Promise<RefcountBlock | null> {
  const cached = refcounts.blocks.get(blockIndex);
  if (cached !== undefined) return cached;
  const offset = blockOffset(state, refcounts.table, blockIndex);
  if (offset === 0) return null;
  const bytes = new Uint8Array(state.geometry.clusterSize);
  await state.storage.read(hostOffset(offset), bytes);
  const raced = refcounts.blocks.get(blockIndex);
  if (raced !== undefined) return raced;
  const block = { offset, bytes, dirty: false };
  dropCleanBlocks(state, refcounts);
  refcounts.blocks.set(blockIndex, block);
  return block;
}

function dropCleanBlocks(state: Qcow2State, refcounts: Refcounts): void {
  let over =
    refcounts.blocks.size + 1 - Math.max(2, Math.floor(CACHE_BYTES / state.geometry.clusterSize));
  for (const [index, block] of refcounts.blocks) {
    if (over <= 0) return;
    if (block.dirty) continue;
    refcounts.blocks.delete(index);
    over--;
  }
}

/**
 * Counts up to `want` contiguous free clusters from cluster `from` on as used (refcount 1) and returns the first and how many.
 * Adds refcount blocks, and a larger refcount table, where there are none.
 */
export async function takeClusters(
  state: Qcow2State,
  refcounts: Refcounts,
  from: number,
  want: number,
): Promise<{ readonly cluster: number; readonly count: number }> {
  const { refcountsPerBlock, refcountBits } = state.geometry;
  for (let cluster = from; ; ) {
    const blockIndex = Math.floor(cluster / refcountsPerBlock);
    const block = await loadBlock(state, refcounts, blockIndex);
    if (block === null) {
      addBlock(state, refcounts, blockIndex);
      continue;
    }
    const { bytes } = block;
    let index = cluster % refcountsPerBlock;
    while (index < refcountsPerBlock && refcountAt(bytes, index, refcountBits) !== 0) index++;
    if (index === refcountsPerBlock) {
      cluster = (blockIndex + 1) * refcountsPerBlock;
      continue;
    }
    let count = 0;
    while (
      count < want &&
      index + count < refcountsPerBlock &&
      refcountAt(bytes, index + count, refcountBits) === 0
    )
      setRefcount(bytes, index + count++, refcountBits, 1);
    block.dirty = true;
    return { cluster: blockIndex * refcountsPerBlock + index, count };
  }
}

/** Lowers the refcount of one cluster by one. Resolves with the new count. */
export async function dropReference(
  state: Qcow2State,
  refcounts: Refcounts,
  cluster: number,
): Promise<number> {
  const { refcountsPerBlock, refcountBits } = state.geometry;
  const block = await loadBlock(state, refcounts, Math.floor(cluster / refcountsPerBlock));
  const index = cluster % refcountsPerBlock;
  const count = block === null ? 0 : refcountAt(block.bytes, index, refcountBits);
  if (block === null || count === 0)
    throw corrupt(
      state.label,
      'cluster in use has refcount 0',
      cluster * state.geometry.clusterSize,
    );
  setRefcount(block.bytes, index, refcountBits, count - 1);
  block.dirty = true;
  return count - 1;
}

/** A new block in the first cluster it counts: nothing there is in use, or a block would count it. */
function addBlock(state: Qcow2State, refcounts: Refcounts, blockIndex: number): void {
  if (2 * blockIndex >= refcounts.table.length) {
    growTable(state, refcounts, blockIndex);
    return;
  }
  const { clusterSize, refcountsPerBlock, refcountBits } = state.geometry;
  const offset = blockIndex * refcountsPerBlock * clusterSize;
  const bytes = new Uint8Array(clusterSize);
  setRefcount(bytes, 0, refcountBits, 1);
  putBlock(state, refcounts, blockIndex, { offset, bytes, dirty: true });
}

function putBlock(
  state: Qcow2State,
  refcounts: Refcounts,
  blockIndex: number,
  block: RefcountBlock,
): void {
  refcounts.blocks.set(blockIndex, block);
  refcounts.table[2 * blockIndex] = Math.floor(block.offset / 2 ** 32);
  refcounts.table[2 * blockIndex + 1] = offsetLow(block.offset);
  refcounts.changed.add(blockIndex);
  registerMetadata(state, block.offset, 'refcount block');
}

/**
 * Moves the refcount table to fresh clusters behind everything that the old one could count, with the blocks that count
 * the new place: K blocks, then T clusters of table, all in the first range that the old table had no entry for.
 */
function growTable(state: Qcow2State, refcounts: Refcounts, blockIndex: number): void {
  const { clusterSize, refcountsPerBlock, refcountBits } = state.geometry;
  const first = refcounts.table.length / 2;
  const sizeFor = (blocks: number): number =>
    Math.ceil((Math.max(first + blocks, blockIndex + 1) * 1.5 * ENTRY_BYTES) / clusterSize);
  let blocks = 1;
  while (blocks + sizeFor(blocks) > blocks * refcountsPerBlock) blocks++;
  const clusters = sizeFor(blocks);
  if (clusters * clusterSize > HARD_LIMITS.refcountTable)
    throw imageError('IMAGE_NO_SPACE', state.label, 'the refcount table cannot grow any more');
  const table = new Uint32Array((clusters * clusterSize) / 4);
  table.set(refcounts.table);
  refcounts.table = table;
  const start = first * refcountsPerBlock;
  for (let block = 0; block < blocks; block++) {
    const bytes = new Uint8Array(clusterSize);
    const used = Math.min(refcountsPerBlock, blocks + clusters - block * refcountsPerBlock);
    for (let index = 0; index < used; index++) setRefcount(bytes, index, refcountBits, 1);
    putBlock(state, refcounts, first + block, {
      offset: (start + block) * clusterSize,
      bytes,
      dirty: true,
    });
  }
  for (let cluster = 0; cluster < clusters; cluster++)
    registerMetadata(state, (start + blocks + cluster) * clusterSize, 'refcount table');
  if (refcounts.moved !== null)
    state.writer?.releases.push({
      offset: refcounts.moved.offset,
      clusters: refcounts.moved.clusters,
    });
  refcounts.moved = { offset: (start + blocks) * clusterSize, clusters };
}

/** @throws ImageError `IMAGE_NO_SPACE` when a refcount of this image cannot reach `value`. */
export function assertRefcountFits(state: Qcow2State, value: number): void {
  if (value > largestRefcount(state.geometry.refcountBits))
    throw imageError(
      'IMAGE_NO_SPACE',
      state.label,
      `refcount ${value} does not fit ${state.geometry.refcountBits} bits`,
    );
}
