import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { restore, takeMarks } from './restore.ts';
import type { Qcow2State } from './state.ts';
import { INCOMPATIBLE } from './structures.ts';
import { survey } from './survey.ts';
import { flushFile } from './writer.ts';

/** Whether an image was not closed by who wrote it last, and postponed refcounts. */
export function isDirty({ header }: Qcow2State): boolean {
  return (header.incompatible[1] & INCOMPATIBLE.dirty) !== 0;
}

/**
 * Rule W7: makes the refcounts and copied flags of a dirty image what its tables say, durably, and only then takes the dirty bit away: a
 * crash in between leaves a dirty image.
 * @throws ImageError `IMAGE_NEEDS_REPAIR`, before anything is written, when more is wrong than that
 */
export async function repairDirty(state: Qcow2State): Promise<void> {
  await flushFile(state, BARRIER.data);
  const found = await survey(state, 'all');
  if (found.problem !== null)
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      state.label,
      `is marked dirty, and has more than wrong refcounts (${found.problem}); repair it first: downfold check -r all`,
    );
  await restore(state, found);
  await takeMarks(state);
}
