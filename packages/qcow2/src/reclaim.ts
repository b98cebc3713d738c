import type { CheckFinding, ReclaimOptions, StagingToken } from '@downfold/image';
import { disclaim } from './autoclear.ts';
import { BARRIER } from './barriers.ts';
import { corrupt } from './corrupt.ts';
import { flushImage } from './flush.ts';
import { HostCounts } from './host-counts.ts';
import { countReferences, type WrongFlag } from './references.ts';
import { isGone, isPublished, placeOf, type StagedPlace } from './stage-place.ts';
import type { Qcow2State, Release } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Gives back clusters whose refcount is above their references, and makes that durable; `keep`: those of a staging count as well,
 * unless it was published or discarded. What refers to them is what the file
 * says now, which after a kill is not yet what a power cut would leave: hence the barrier. Resolves with how many there were.
 * To be run in the mutation queue.
 */
export async function reclaimLeaks(state: Qcow2State, options?: ReclaimOptions): Promise<number> {
  const writer = writerOf(state);
  await flushImage(state);
  const problems: string[] = [];
  const { clusterSize } = state.geometry;
  // clusters whose copied flag is right once the refcount is: a publish with an undo snapshot was cut short
  const raised = new HostCounts(state.fileEnd / clusterSize);
  const find = ({ message }: CheckFinding, flag?: WrongFlag): void => {
    if (flag?.copied) raised.add(flag.cluster, 1);
    else problems.push(message);
  };
  const keep = options?.keep == null ? null : await placeToKeep(state, options.keep);
  const references = await countReferences(state, keep, find, options);
  const leaked: Release[] = [];
  references.stored.compare(references.counted, (cluster, stored, counted) => {
    if (stored < counted || (raised.get(cluster) > 0 && counted > 1))
      problems.push(`cluster ${cluster}: refcount ${stored}, references ${counted}`);
    else if (stored > counted)
      leaked.push({ offset: cluster * clusterSize, clusters: 1, references: stored - counted });
  });
  if (problems.length > 0)
    throw corrupt(
      state.label,
      `has worse than leaks (${problems[0]}); repair it first: qemu-img check -r all`,
    );
  if (leaked.length === 0) return 0;
  await disclaim(state, 'header');
  await state.storage.flush(BARRIER.inherited);
  writer.releases = leaked;
  await flushImage(state);
  return leaked.length;
}

/** Where the staging of a token lies; null when there is none any more, for then nothing of it is to be kept. */
async function placeToKeep(state: Qcow2State, token: StagingToken): Promise<StagedPlace | null> {
  const place = placeOf(state, token);
  return isPublished(state, place) || (await isGone(state, place)) ? null : place;
}
