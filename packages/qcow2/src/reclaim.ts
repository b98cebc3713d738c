import type { OperationOptions } from '@downfold/storage';
import { disclaim } from './autoclear.ts';
import { BARRIER } from './barriers.ts';
import { corrupt } from './corrupt.ts';
import { flushImage } from './flush.ts';
import { countReferences } from './references.ts';
import type { Qcow2State, Release } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Gives back clusters whose refcount is above their references, and makes that durable. What refers to them is what the file
 * says now, which after a kill is not yet what a power cut would leave: hence the barrier. Resolves with how many there were.
 * To be run in the mutation queue.
 */
export async function reclaimLeaks(state: Qcow2State, options?: OperationOptions): Promise<number> {
  const writer = writerOf(state);
  await flushImage(state);
  const problems: string[] = [];
  const references = await countReferences(state, ({ message }) => problems.push(message), options);
  const leaked: Release[] = [];
  const { clusterSize } = state.geometry;
  references.stored.compare(references.counted, (cluster, stored, counted) => {
    if (stored < counted)
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
