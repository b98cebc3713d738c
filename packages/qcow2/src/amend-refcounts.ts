import { readBitmaps } from './bitmaps.ts';
import { imageError } from './corrupt.ts';
import { FirstProblem } from './first-problem.ts';
import { flushImage } from './flush.ts';
import { geometryOf } from './geometry.ts';
import { CHUNK_CLUSTERS, COUNT, type HostCounts } from './host-counts.ts';
import { metadataOf } from './open-metadata.ts';
import { isRefcountWidth, largestRefcount } from './refcount-codec.ts';
import { countReferences } from './references.ts';
import { rebuildRefcounts } from './repair-rebuild.ts';
import type { Qcow2State } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Changes the width of refcounts: counts all references anew, writes refcount blocks and table of that width behind everything, and switches
 * place and width by one write of the header's first sector (W2, W11). A crash leaves the old structures or the new ones; what is not referred to is
 * free afterwards, the old structures too. To be run in the mutation queue.
 * @throws ImageError, before anything is written: `IMAGE_UNSUPPORTED` for a width that there is none of, or that a refcount does not fit;
 * `IMAGE_NEEDS_REPAIR` for an image that is corrupt; `IMAGE_NO_SPACE` when the table would be too large
 */
export async function setRefcountBits(state: Qcow2State, bits: number): Promise<void> {
  await flushImage(state);
  const worst = new FirstProblem();
  const { counted } = await countReferences(state, null, worst.hear, { refcounts: false });
  if (worst.message !== null)
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      state.label,
      `is corrupt (${worst.message}), and its refcounts cannot be counted`,
    );
  assertFits(state, counted, bits);
  const { clusterBits, clusterSize, extendedL2 } = state.geometry;
  const geometry = geometryOf(clusterBits, extendedL2, Math.log2(bits));
  const end = Math.max(counted.end, Math.ceil(state.fileEnd / clusterSize));
  await rebuildRefcounts(state, counted, end, geometry);
  state.geometry = geometry;
  const writer = writerOf(state);
  try {
    Object.assign(writer, await metadataOf(state, await readBitmaps(state)), { nextFree: 0 });
  } catch (cause) {
    // what the writer knows of refcounts is of the old ones, and would be read by the new width
    writer.failure ??= cause;
    throw cause;
  }
}

/** @throws ImageError `IMAGE_UNSUPPORTED` for a width that the format does not have, or not this version of it. */
export function assertRefcountBits(state: Qcow2State, bits: number, version: 2 | 3): void {
  if (!isRefcountWidth(bits))
    throw refusal(state, `refcounts of ${bits} bits; allowed are 1, 2, 4, 8, 16, 32 and 64`);
  if (version === 2 && bits !== 16) throw refusal(state, `refcounts of ${bits} bits in version 2`);
}

function assertFits(state: Qcow2State, counted: HostCounts, bits: number): void {
  const most = largestRefcount(bits);
  for (const [index, chunk] of counted.chunks)
    for (const [at, present] of chunk.entries()) {
      if ((present & COUNT) <= most && (present & COUNT) < COUNT) continue;
      const cluster = index * CHUNK_CLUSTERS + at;
      if (counted.count(cluster) <= most) continue;
      const offset = cluster * state.geometry.clusterSize;
      const feature = `refcounts of ${bits} bits: the cluster at byte ${offset} is referred to ${counted.count(cluster)} times`;
      throw imageError('IMAGE_UNSUPPORTED', state.label, feature, offset, { feature });
    }
}

function refusal(state: Qcow2State, feature: string): Error {
  return imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}
