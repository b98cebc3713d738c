import type { OperationOptions } from '@downfold/storage';
import { applyReleases, writerOf } from './allocate.ts';
import { claimAutoclear } from './autoclear.ts';
import { corrupt } from './corrupt.ts';
import { flushImage } from './flush.ts';
import { countReferences } from './references.ts';
import type { Qcow2State, Release } from './state.ts';

/**
 * Gives back clusters whose refcount is above their references. Lowering such a count is safe in any order: nothing that is
 * durable refers to them that often. Resolves with how many there were. To be called before anything was written.
 */
export async function reclaimLeaks(state: Qcow2State, options?: OperationOptions): Promise<number> {
  const writer = writerOf(state);
  const problems: string[] = [];
  const references = await countReferences(state, ({ message }) => problems.push(message), options);
  const leaked: Release[] = [];
  let clusters = 0;
  references.stored.compare(references.counted, (cluster, stored, counted) => {
    if (stored < counted)
      problems.push(`cluster ${cluster}: refcount ${stored}, references ${counted}`);
    if (stored > counted) clusters++;
    for (let over = stored - counted; over > 0; over--)
      leaked.push({ offset: cluster * state.geometry.clusterSize, clusters: 1 });
  });
  if (problems.length > 0)
    throw corrupt(
      state.label,
      `has worse than leaks (${problems[0]}); repair it first: qemu-img check -r all`,
    );
  if (clusters === 0) return 0;
  await claimAutoclear(state, writer);
  await applyReleases(state, writer, leaked);
  await flushImage(state, writer);
  return clusters;
}
