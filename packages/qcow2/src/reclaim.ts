import type { ReclaimOptions, StagingToken } from '@downfold/image';
import { disclaim } from './autoclear.ts';
import { compareRefcounts, type Difference, wrongFlag } from './compare-refcounts.ts';
import { setCopied } from './copied-flags.ts';
import { corrupt } from './corrupt.ts';
import { FirstProblem } from './first-problem.ts';
import { flushImage } from './flush.ts';
import { HostCounts } from './host-counts.ts';
import { countReferences } from './references.ts';
import { isGone, isPublished, placeOf, type StagedPlace } from './stage-place.ts';
import type { Qcow2State, Release } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Gives back clusters whose refcount is above their references, and makes that durable; `keep`: those of a staging count as well,
 * unless it was published or discarded. What refers to them is what the file says now; the flush before makes that what a power cut
 * would leave, also when the process that wrote it was killed. Resolves with how many there were. To be run in the mutation queue.
 */
export async function reclaimLeaks(state: Qcow2State, options?: ReclaimOptions): Promise<number> {
  const writer = writerOf(state);
  const { clusterSize } = state.geometry;
  await flushImage(state);
  const keep = options?.keep == null ? null : await placeToKeep(state, options.keep);
  const worst = new FirstProblem();
  const references = await countReferences(state, keep, worst.hear, options);
  const leaked: Release[] = [];
  let leaks = 0;
  const unflagged = new HostCounts(state);
  const sort = (difference: Difference): void => {
    const { cluster, stored, counted } = difference;
    if (isWorse(difference))
      worst.message ??= `cluster ${cluster}: refcount ${stored}, references ${counted}`;
    else if (stored > counted) {
      leaks += 1;
      addLeak(leaked, cluster * clusterSize, stored - counted, clusterSize);
      if (difference.shared && counted === 1) unflagged.add(cluster, 1);
    }
  };
  await compareRefcounts(state, references, sort, options);
  if (worst.message !== null)
    throw corrupt(
      state.label,
      `has worse than leaks (${worst.message}); repair it first: downfold check -r all`,
    );
  if (leaked.length === 0) return 0;
  await disclaim(state, 'header');
  // before the refcount goes down: a crash in between leaves what `isWorse` takes for a leak, not a flag that is wrong for good
  await setCopied(state, unflagged);
  writer.releases = leaked;
  await flushImage(state);
  return leaks;
}

/** Adds a cluster; one that follows the last is one with it: a large snapshot may leave millions. */
function addLeak(leaked: Release[], offset: number, references: number, clusterSize: number): void {
  const last = leaked.at(-1);
  if (last?.references === references && last.offset + last.clusters * clusterSize === offset)
    last.clusters += 1;
  else leaked.push({ offset, clusters: 1, references });
}

/** Not a leak, unless lowering the refcount makes the copied flag true: a publish with an undo snapshot was cut short. */
function isWorse(difference: Difference): boolean {
  const { stored, counted, shared } = difference;
  return stored < counted || (wrongFlag(stored, difference, stored) && (shared || counted !== 1));
}

/** Where the staging of a token lies; null when there is none any more, for then nothing of it is to be kept. */
async function placeToKeep(state: Qcow2State, token: StagingToken): Promise<StagedPlace | null> {
  const place = placeOf(state, token);
  return isPublished(state, place) || (await isGone(state, place)) ? null : place;
}
