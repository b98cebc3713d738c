import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import type { Geometry } from './geometry.ts';
import { patchHeader } from './header-sector.ts';
import { CHUNK_CLUSTERS, COUNT, type HostCounts } from './host-counts.ts';
import { HARD_LIMITS } from './limits.ts';
import { largestRefcount, setRefcount } from './refcount-codec.ts';
import { isTableLost } from './refcounts.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, INCOMPATIBLE, offsetLow } from './structures.ts';
import { bytesOf } from './words.ts';
import { flushFile } from './writer.ts';

/**
 * Writes new refcount blocks and a new refcount table from cluster `end` on, behind all that is in use, and switches to them by one write
 * of the header's first sector (W2, W11): a crash leaves the old structures or the new ones. Nothing counts the old ones any more. Where the old table was
 * lost with the end of the file, what is written may bring its place back, as zeros, which count everything as free: the image is marked corrupt
 * first, and until all is repaired (version 2 has no such mark; QEMU takes zeros for a lost table in any case). `geometry`: with the width that refcounts are to have.
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
  const { start, indexes, tableClusters } = layOut(state, counted, end, geometry);
  const stop = (start + indexes.length + tableClusters) * clusterSize;
  if (counted.beyond < stop)
    throw imageError(
      'IMAGE_CORRUPT',
      state.label,
      'points past the end of the file, to where rebuilt refcounts would lie; that is to be mended first',
      counted.beyond,
    );
  const table = new Uint32Array((tableClusters * clusterSize) / 4);
  if (isTableLost(state)) await markCorrupt(state);
  let at = start * clusterSize;
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

async function markCorrupt(state: Qcow2State): Promise<void> {
  const [high, low] = state.header.incompatible;
  const incompatible = [high, (low | INCOMPATIBLE.corrupt) >>> 0] as const;
  await patchHeader(state, { incompatible }, BARRIER.corruptBit);
}

/** The new structures: number of their first cluster, which blocks there must be, in order, and how long the table. */
interface Layout {
  readonly start: number;
  readonly indexes: readonly number[];
  readonly tableClusters: number;
}

/** Lays the new structures out from cluster `end` on, behind the place of a lost table when they would meet it; counts their clusters. */
function layOut(
  state: Qcow2State,
  counted: HostCounts,
  end: number,
  { clusterSize, refcountsPerBlock }: Geometry,
): Layout {
  const needed = blocksInUse(counted, refcountsPerBlock);
  const last = [...needed].reduce((most, index) => Math.max(most, index), 0);
  // those that count the new structures themselves are few
  const about = 2 * (needed.size + Math.ceil((last * ENTRY_BYTES) / clusterSize)) + 16;
  const start = behindLostTable(state, end, about);
  for (let next = start; ; ) {
    const entries = Math.max(last, Math.floor(next / refcountsPerBlock)) + 1;
    const tableClusters = Math.ceil((entries * ENTRY_BYTES) / clusterSize);
    if (tableClusters * clusterSize > HARD_LIMITS.refcountTable)
      throw imageError('IMAGE_NO_SPACE', state.label, 'needs too large a refcount table');
    const stop = start + needed.size + tableClusters;
    if (next === stop) return { start, indexes: [...needed].sort((a, b) => a - b), tableClusters };
    for (; next < stop; next++) {
      counted.add(next, 1);
      needed.add(Math.floor(next / refcountsPerBlock));
    }
  }
}

/** Number of a cluster from `end` on, behind which `count` of them do not meet the place of a lost table: after a crash they would be taken for it. */
function behindLostTable(state: Qcow2State, end: number, count: number): number {
  if (!isTableLost(state)) return end;
  const { refcountTableOffset, refcountTableClusters } = state.header;
  const lost = refcountTableOffset / state.geometry.clusterSize;
  const meets = lost < end + count && lost + refcountTableClusters > end;
  return meets ? lost + refcountTableClusters : end;
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
