import type { ImageSnapshot } from '@downfold/image';
import { reclaimLeaks } from './reclaim.ts';
import { readSnapshots, snapshotFacts } from './snapshots.ts';
import { beginStaging } from './stage.ts';
import { orDiscarded, publishStaged } from './stage-publish.ts';
import type { Qcow2State } from './state.ts';

/**
 * Takes an internal snapshot: a staging in which nothing was changed is published, and the mapping before it kept. Its L2 tables are
 * copies then, so that no table that the disk uses has to change in place. To be run in the mutation queue.
 * @throws ImageError `IMAGE_CORRUPT`, before anything is written, when the check finds more than leaks
 */
export async function createSnapshot(
  state: Qcow2State,
  about: { readonly name: string; readonly date: string },
): Promise<ImageSnapshot> {
  await reclaimLeaks(state);
  const staged = await beginStaging(state, state.header.size, null);
  await orDiscarded(staged, () => publishStaged(staged, { ...about, unique: false }));
  return snapshotFacts((await readSnapshots(state)).at(-1) as never);
}
