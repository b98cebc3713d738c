import { BARRIER } from './barriers.ts';
import { compareRefcounts, type Difference } from './compare-refcounts.ts';
import { setCopied } from './copied-flags.ts';
import { imageError } from './corrupt.ts';
import { flushImage } from './flush.ts';
import { patchHeader } from './header-sector.ts';
import { raiseRefcount } from './refcounts.ts';
import { countReferences } from './references.ts';
import type { Qcow2State, Release } from './state.ts';
import { INCOMPATIBLE } from './structures.ts';
import { mutate, writerOf } from './writer.ts';

/** Whether an image was not closed by who wrote it last, and postponed refcounts. */
export function isDirty({ header }: Qcow2State): boolean {
  return (header.incompatible[1] & INCOMPATIBLE.dirty) !== 0;
}

/**
 * Rule W7: makes the refcounts and copied flags of a dirty image what its tables say, durably, and only then takes the dirty bit away: a
 * crash in between leaves a dirty image.
 * @throws ImageError `IMAGE_NEEDS_REPAIR`, before anything is written, when more is wrong than that
 */
export function repairDirty(state: Qcow2State): Promise<void> {
  return mutate(state, async () => {
    await restoreCounts(state);
    const [high, low] = state.header.incompatible;
    const incompatible = [high, (low & ~INCOMPATIBLE.dirty) >>> 0] as const;
    await patchHeader(state, { incompatible }, BARRIER.repaired);
  });
}

async function restoreCounts(state: Qcow2State): Promise<void> {
  const { clusterSize } = state.geometry;
  const writer = writerOf(state);
  const problems: string[] = [];
  const references = await countReferences(state, null, ({ message }) => problems.push(message));
  const different: Difference[] = [];
  await compareRefcounts(state, references, (difference) => different.push(difference));
  if (problems.length > 0)
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      state.label,
      `is marked dirty, and has more than wrong refcounts (${problems[0]}); repair it first: qemu-img check -r all`,
    );
  const inUse = (cluster: number): boolean => references.counted.count(cluster) > 0;
  const releases: Release[] = [];
  const [owned, shared] = [new Set<number>(), new Set<number>()];
  for (const { cluster, stored, counted, ...said } of different) {
    if (stored < counted) await raiseRefcount(state, writer.refcounts, cluster, counted, inUse);
    else if (stored > counted)
      releases.push({ offset: cluster * clusterSize, clusters: 1, references: stored - counted });
    if (counted === 1 && said.shared) owned.add(cluster);
    if (counted > 1 && said.copied) shared.add(cluster);
  }
  await setCopied(state, owned, true);
  await setCopied(state, shared, false);
  writer.releases = releases;
  await flushImage(state);
}
