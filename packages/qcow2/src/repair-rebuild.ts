import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import type { Geometry } from './geometry.ts';
import { patchHeader } from './header-sector.ts';
import { CHUNK_CLUSTERS, COUNT, type HostCounts } from './host-counts.ts';
import { HARD_LIMITS } from './limits.ts';
import { largestRefcount, setRefcount } from './refcount-codec.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, offsetLow } from './structures.ts';
import { bytesOf } from './words.ts';
import { flushFile } from './writer.ts';

/**
 * Writes new refcount blocks and a new refcount table from cluster `end` on, behind all that is in use, and switches to them by one write
 * of the header's first sector (W2, W11): a crash leaves the old structures or the new ones. Nothing counts the old ones any more. `geometry`: with the
 * width that refcounts are to have.
 * @throws ImageError before anything is written: `IMAGE_NO_SPACE` when the table would be too large; `IMAGE_CORRUPT` when something points past
 * the end of the file to where the new structures would lie: what is refused as long as nothing is there would be read from then on
 */
export async function rebuildRefcounts(
  state: Qcow2State,
  counted: HostCounts,
  end: number,
  geometry: Geometry = state.geometry,
): Promise<void> {
  const { storage } = state;
  const { clusterSize, refcountBits } = geometry;
  const { indexes, tableClusters } = layOut(state, counted, end, geometry);
  const stop = (end + indexes.length + tableClusters) * clusterSize;
  if (counted.beyond < stop)
    throw imageError(
      'IMAGE_CORRUPT',
      state.label,
      'points past the end of the file, to where rebuilt refcounts would lie; that is to be mended first',
      counted.beyond,
    );
  const table = new Uint32Array((tableClusters * clusterSize) / 4);
  let at = end * clusterSize;
  for (const index of indexes) {
    await storage.write(hostOffset(at), blockOf(geometry, counted, index), {
      what: 'refcount block',
    });
    table[2 * index] = Math.floor(at / 2 ** 32);
    table[2 * index + 1] = offsetLow(at);
    at += clusterSize;
  }
  await storage.write(hostOffset(at), bytesOf(table), { what: 'refcount table' });
  state.fileEnd = Math.max(state.fileEnd, at + tableClusters * clusterSize);
  await flushFile(state, BARRIER.content);
  await patchHeader(
    state,
    {
      refcountTableOffset: at,
      refcountTableClusters: tableClusters,
      refcountOrder: Math.log2(refcountBits),
    },
    BARRIER.refcountTableMoved,
  );
}

/** Which blocks there must be, in order, and how long the table; counts the clusters where they will lie. */
function layOut(
  state: Qcow2State,
  counted: HostCounts,
  end: number,
  { clusterSize, refcountsPerBlock }: Geometry,
): { readonly indexes: readonly number[]; readonly tableClusters: number } {
  const needed = blocksInUse(counted, refcountsPerBlock);
  const last = [...needed].reduce((most, index) => Math.max(most, index), 0);
  for (let next = end; ; ) {
    const entries = Math.max(last, Math.floor(next / refcountsPerBlock)) + 1;
    const tableClusters = Math.ceil((entries * ENTRY_BYTES) / clusterSize);
    if (tableClusters * clusterSize > HARD_LIMITS.refcountTable)
      throw imageError('IMAGE_NO_SPACE', state.label, 'needs too large a refcount table');
    const stop = end + needed.size + tableClusters;
    if (next === stop) return { indexes: [...needed].sort((a, b) => a - b), tableClusters };
    for (; next < stop; next++) {
      counted.add(next, 1);
      needed.add(Math.floor(next / refcountsPerBlock));
    }
  }
}

/** Numbers of the refcount blocks that count something. */
function blocksInUse(counted: HostCounts, refcountsPerBlock: number): Set<number> {
  const needed = new Set<number>();
  for (const [index, chunk] of counted.chunks)
    for (let at = 0; at < chunk.length; at++)
      if (((chunk[at] as number) & COUNT) !== 0)
        needed.add(Math.floor((index * CHUNK_CLUSTERS + at) / refcountsPerBlock));
  return needed;
}

function blockOf(
  { clusterSize, refcountsPerBlock, refcountBits }: Geometry,
  counted: HostCounts,
  index: number,
): Uint8Array {
  const most = largestRefcount(refcountBits);
  const bytes = new Uint8Array(clusterSize);
  for (let at = 0; at < refcountsPerBlock; at++) {
    const count = Math.min(counted.count(index * refcountsPerBlock + at), most);
    if (count > 0) setRefcount(bytes, at, refcountBits, count);
  }
  return bytes;
}
