import type { CheckFinding, CheckOptions, CheckReport, OpenImageOptions } from '@downfold/image';
import type { OperationOptions, Storage } from '@downfold/storage';
import { BARRIER } from './barriers.ts';
import { checkImage } from './check.ts';
import { imageError } from './corrupt.ts';
import { openForRepair } from './open.ts';
import { marksOf, restore, takeMarks } from './restore.ts';
import { dropSnapshotsBeyond, mendSnapshots } from './snapshot-mend.ts';
import type { Qcow2State } from './state.ts';
import { type RepairScope, type Survey, survey } from './survey.ts';
import { flushFile } from './writer.ts';

/** Options of a repair. `onFinding` is told what was wrong before. */
export interface RepairOptions
  extends CheckOptions,
    Pick<OpenImageOptions, 'limits' | 'openDataFile'> {
  readonly scope: RepairScope;
  /** Is told what is still wrong afterwards. */
  readonly onLeft?: (finding: CheckFinding) => void;
}

/** What was wrong, and what still is: two checks, before and after. The same one when nothing was to be repaired. */
export interface RepairReport {
  readonly found: CheckReport;
  readonly left: CheckReport;
  readonly leaksFixed: number;
  /** Without copied flags that came right because a refcount did; as QEMU counts them. */
  readonly corruptionsFixed: number;
}

/**
 * Repairs an image that nobody has open. Every write leaves it no worse than it was: refcounts go up before flags change, flags change
 * before refcounts go down, and new refcount structures are whole before one write of the header's first sector switches to them. Dirty
 * and corrupt bits go when a check finds no corruption any more.
 * @throws ImageError, before anything is written, for an image that cannot be read or checked
 */
export async function repairImage(storage: Storage, options: RepairOptions): Promise<RepairReport> {
  const state = await openForRepair(storage, options, options.scope === 'all');
  try {
    const found = await checkImage(state, options);
    if (found.corruptions === 0 && found.leaks === 0 && marksOf(state) === 0)
      return { found, left: found, leaksFixed: 0, corruptionsFixed: 0 };
    const { onLeft, onFinding: _, ...operation } = options;
    await flushFile(state, BARRIER.data);
    if (options.scope === 'all') await dropSnapshotsBeyond(state);
    const planned = await plan(state, options.scope, operation);
    await restore(state, planned, operation);
    if (options.scope === 'all') await mendSnapshots(state, operation);
    const left = await checkImage(state, { ...operation, ...(onLeft && { onFinding: onLeft }) });
    if (left.corruptions === 0 && marksOf(state) !== 0) await takeMarks(state);
    return {
      found,
      left,
      leaksFixed: Math.max(0, found.leaks - left.leaks),
      corruptionsFixed: Math.max(0, found.corruptions - left.corruptions - planned.healed),
    };
  } finally {
    await state.external?.[Symbol.asyncDispose]();
  }
}

async function plan(
  state: Qcow2State,
  scope: RepairScope,
  options: OperationOptions,
): Promise<Survey> {
  const found = await survey(state, scope, options);
  if (found.rebuild && scope === 'leaks')
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      state.label,
      'its refcount table or blocks are damaged, and must be rebuilt before leaks can be told',
    );
  return found;
}
