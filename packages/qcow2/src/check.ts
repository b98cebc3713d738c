import type { CheckFinding, CheckOptions, CheckReport } from '@downfold/image';
import { compareRefcounts, type Difference, wrongFlag } from './compare-refcounts.ts';
import { largestRefcount } from './refcount-codec.ts';
import { countReferences } from './references.ts';
import { damagesOf } from './snapshot-damages.ts';
import { readSnapshots } from './snapshots.ts';
import { placeIn } from './stage-place.ts';
import type { Qcow2State } from './state.ts';

/** Compares what is counted with what is referenced, as `qemu-img check` does; never writes. */
export async function checkImage(
  state: Qcow2State,
  options: CheckOptions = {},
): Promise<CheckReport> {
  const { onFinding } = options;
  let [corruptions, leaks] = [0, 0];
  const tell = (
    severity: CheckFinding['severity'],
    offset: number | null,
    message: string,
  ): void => {
    if (severity === 'leak') leaks++;
    else corruptions++;
    onFinding?.({ severity, message, offset });
  };
  const { clusterSize, refcountBits } = state.geometry;
  const most = largestRefcount(refcountBits);
  const keep = state.staged === null ? null : placeIn(state.staged.header);
  const references = await countReferences(
    state,
    keep,
    ({ severity, message, offset }) => tell(severity, offset, message),
    options,
  );
  for (const { message, offset } of damagesOf(state, await readSnapshots(state)))
    tell('corruption', offset, message);
  // there may be millions, and nobody to hear of them: only then are they put into words
  const heard = onFinding !== undefined;
  const differs = (difference: Difference): void => {
    const { cluster, stored, counted } = difference;
    const offset = cluster * clusterSize;
    if (stored !== counted)
      tell(
        stored > counted ? 'leak' : 'corruption',
        offset,
        // in qemu-img's words: scripts read them
        heard ? `cluster ${cluster} refcount=${stored} reference=${counted}` : '',
      );
    // beside a wrong refcount too: QEMU counts both
    if (wrongFlag(stored, difference, most))
      tell(
        'corruption',
        offset,
        heard ? `cluster ${cluster}: a copied flag is wrong for refcount ${stored}` : '',
      );
  };
  const imageEndOffset = await compareRefcounts(state, references, differs, options);
  return {
    corruptions,
    leaks,
    totalClusters: Math.ceil(state.header.size / clusterSize),
    allocatedClusters: references.allocatedClusters,
    fragmentedClusters: references.fragmentedClusters,
    compressedClusters: references.compressedClusters,
    imageEndOffset,
  };
}
