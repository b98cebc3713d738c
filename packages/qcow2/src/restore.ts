import type { OperationOptions } from '@downfold/storage';
import { disclaim } from './autoclear.ts';
import { BARRIER } from './barriers.ts';
import { patchHeader } from './header-sector.ts';
import { writeFlags } from './repair-flags.ts';
import { rebuildRefcounts } from './repair-rebuild.ts';
import { lowerRefcounts, raiseRefcounts } from './repair-refcounts.ts';
import type { Qcow2State } from './state.ts';
import { INCOMPATIBLE } from './structures.ts';
import type { Survey } from './survey.ts';

/** Makes refcounts and copied flags what a survey says they are to be, durably. */
export async function restore(
  state: Qcow2State,
  { references, rebuild, low, high, flags, end }: Survey,
  options?: OperationOptions,
): Promise<void> {
  if (!rebuild && !low && !high && flags.set.end === 0 && flags.take.end === 0) return;
  await disclaim(state, 'header');
  if (rebuild) await rebuildRefcounts(state, references.counted, end);
  else if (low) await raiseRefcounts(state, references, options);
  await writeFlags(state, references, flags, options);
  if (high && !rebuild) await lowerRefcounts(state, references, options);
}

/** The dirty and corrupt bits of an image. */
export function marksOf({ header }: Qcow2State): number {
  return header.incompatible[1] & (INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt);
}

/** Rule W7: after all else is right and durable, and in one sector. */
export async function takeMarks(state: Qcow2State): Promise<void> {
  await disclaim(state, 'header');
  const [high, low] = state.header.incompatible;
  const incompatible = [high, (low & ~marksOf(state)) >>> 0] as const;
  await patchHeader(state, { incompatible }, BARRIER.repaired);
}
