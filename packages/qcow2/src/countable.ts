import { imageError } from './corrupt.ts';
import { HostCounts } from './host-counts.ts';
import { largestRefcount } from './refcount-codec.ts';
import { refcountOf } from './refcounts.ts';
import type { Qcow2State } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Asserts that refcounts can hold one reference more to each of `clusters`, which come in batches, and as often as they are referred to.
 * Changes nothing.
 * @param what what the references are of, for the message
 * @throws ImageError `IMAGE_NO_SPACE`
 */
export async function assertCountable(
  state: Qcow2State,
  clusters: AsyncIterable<Iterable<number>>,
  what: string,
): Promise<void> {
  const { clusterSize, refcountBits } = state.geometry;
  const { refcounts } = writerOf(state);
  const added = new HostCounts(state);
  const largest = largestRefcount(refcountBits);
  for await (const batch of clusters)
    for (const cluster of batch) {
      added.add(cluster, 1);
      const count = (await refcountOf(state, refcounts, cluster)) + added.count(cluster);
      if (count > largest)
        throw imageError(
          'IMAGE_NO_SPACE',
          state.label,
          `refcounts of ${refcountBits} bits cannot count ${what}`,
          cluster * clusterSize,
        );
    }
}
