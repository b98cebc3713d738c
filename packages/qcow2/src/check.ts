import type { CheckFinding, CheckOptions, CheckReport } from '@downfold/image';
import { compareRefcounts, wrongFlag } from './compare-refcounts.ts';
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
  let [corruptions, leaks] = [0, 0];
  const count = (severity: CheckFinding['severity']): void => {
    if (severity === 'leak') leaks++;
    else corruptions++;
  };
  const find = (finding: CheckFinding): void => {
    count(finding.severity);
    options.onFinding?.(finding);
  };
  const { clusterSize } = state.geometry;
  const keep = state.staged === null ? null : placeIn(state.staged.header);
  const references = await countReferences(state, keep, find, options);
  for (const { message, offset } of damagesOf(state, await readSnapshots(state)))
    find({ severity: 'corruption', message, offset });
  const imageEndOffset = await compareRefcounts(
    state,
    references,
    (difference) => {
      const { cluster, stored, counted } = difference;
      const severity = stored > counted ? 'leak' : 'corruption';
      // there may be millions, and nobody to hear of them
      if (options.onFinding === undefined) {
        if (stored !== counted) count(severity);
        if (wrongFlag(difference)) count('corruption');
        return;
      }
      const offset = cluster * clusterSize;
      if (stored !== counted)
        find({
          severity,
          // in qemu-img's words: scripts read them
          message: `cluster ${cluster} refcount=${stored} reference=${counted}`,
          offset,
        });
      // beside a wrong refcount too: QEMU counts both
      if (wrongFlag(difference))
        find({
          severity: 'corruption',
          message: `cluster ${cluster}: a copied flag is wrong for refcount ${stored}`,
          offset,
        });
    },
    options,
  );
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
