import { posix } from 'node:path';
import type { BitmapsMode } from '@downfold/commit';
import { engineFor } from '../engine.ts';
import { backend, naming } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { absolute } from '../paths.ts';
import { planAgain } from '../plan-again.ts';
import { leafOf, readPlan } from '../plan-file.ts';
import type { StoredPlan } from '../plan-schema.ts';
import { type PlannedOptions, planAndRun } from '../planned.ts';

/** Options of `commit`. */
export interface CommitOptions extends PlannedOptions {
  readonly format: string;
  readonly base?: string;
  readonly top?: string;
  readonly strategy?: string;
  readonly drop?: boolean;
  /** Do what this plan says. */
  readonly plan?: string;
  readonly pool?: readonly string[];
  readonly keepSiblings?: boolean;
  readonly invalidateSiblings?: boolean;
  readonly ignoreUnreadable?: boolean;
  readonly keepUndo?: boolean;
  readonly bitmaps?: BitmapsMode;
  readonly delete?: boolean;
}

/** `downfold commit`: folds the layers above base up to top into base, then relinks. */
export async function commit(file: string, options: CommitOptions): Promise<number> {
  const engine = engineFor(file, naming(options, options.base));
  const deleteIntermediates = options.delete ?? false;
  if (options.plan !== undefined) {
    const stored = await storedPlan(file, options.plan, options);
    return planAndRun(engine, file, options, (how) => planAgain(engine, stored, how), {
      deleteIntermediates,
    });
  }
  const emptyTop = await emptiesTop(file, options);
  const strategy = options.strategy ?? (options.keepSiblings === true ? 'preserve' : 'copy-down');
  if (options.keepUndo === true && strategy !== 'staged')
    throw new UsageError('--keep-undo goes with --strategy staged');
  const request = {
    file: absolute(file),
    format: options.format,
    base: options.base,
    top: options.top,
    strategy,
    emptyTop,
    pools: (options.pool ?? []).map(absolute),
    invalidateSiblings: options.invalidateSiblings ?? false,
    keepSiblings: options.keepSiblings ?? false,
    ignoreUnreadable: options.ignoreUnreadable ?? false,
    keepUndo: options.keepUndo ?? false,
    ...(options.bitmaps === undefined ? {} : { bitmaps: options.bitmaps }),
  };
  return planAndRun(engine, file, options, (how) => engine.plan(request, how), {
    deleteIntermediates,
  });
}

/** @throws UsageError when the plan is for another image, or what it settles is asked for again */
async function storedPlan(file: string, path: string, options: CommitOptions): Promise<StoredPlan> {
  const { base, top, strategy, drop, pool, keepUndo, bitmaps } = options;
  const { keepSiblings, invalidateSiblings, ignoreUnreadable } = options;
  const siblings = [keepSiblings, invalidateSiblings, ignoreUnreadable];
  const settled = [base, top, strategy, drop, pool, keepUndo, bitmaps, ...siblings];
  if (settled.some((one) => one !== undefined))
    throw new UsageError(
      '--plan settles what is committed, and how: give it with FILE and without -b, --top, --strategy, -d, --pool, --bitmaps and what is said of siblings',
    );
  const stored = await readPlan(posix.resolve(path));
  const leaf = leafOf(stored).path;
  const real = await backend.realPath(absolute(file));
  if (leaf !== real) throw new UsageError(`'${path}' is a plan for '${leaf}', not for '${file}'`);
  return stored;
}

/** As qemu-img: FILE itself is committed, and neither -b nor -d was given. */
async function emptiesTop(file: string, options: CommitOptions): Promise<boolean> {
  if (options.base !== undefined || options.drop === true) return false;
  if (options.top === undefined) return true;
  const [top, leaf] = await Promise.all([
    backend.realPath(absolute(options.top)).catch(() => null),
    backend.realPath(absolute(file)),
  ]);
  return top === leaf;
}
