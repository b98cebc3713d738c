import type { CheckFinding, CheckOptions, CheckReport } from '@downfold/image';
import { countReferences } from './references.ts';
import { placeIn } from './stage-place.ts';
import type { Qcow2State } from './state.ts';

/** Compares what is counted with what is referenced, as `qemu-img check` does; never writes. */
export async function checkImage(
  state: Qcow2State,
  options: CheckOptions = {},
): Promise<CheckReport> {
  let [corruptions, leaks, last] = [0, 0, -1];
  const find = (finding: CheckFinding): void => {
    if (finding.severity === 'leak') leaks++;
    else corruptions++;
    options.onFinding?.(finding);
  };
  const keep = state.staged === null ? null : placeIn(state.staged.header);
  const references = await countReferences(state, keep, find, options);
  const { clusterSize } = state.geometry;
  references.stored.compare(references.counted, (cluster, stored, counted) => {
    last = cluster;
    if (stored === counted) return;
    const severity = stored > counted ? 'leak' : 'corruption';
    const offset = cluster * clusterSize;
    find({
      severity,
      message: `cluster ${cluster}: refcount ${stored}, references ${counted}`,
      offset,
    });
  });
  return {
    corruptions,
    leaks,
    totalClusters: Math.ceil(state.header.size / clusterSize),
    allocatedClusters: references.allocatedClusters,
    fragmentedClusters: references.fragmentedClusters,
    compressedClusters: references.compressedClusters,
    imageEndOffset: (last + 1) * clusterSize,
  };
}
