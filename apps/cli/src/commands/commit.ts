import type { CommitPlan } from '@downfold/commit';
import { engineFor, type JobOptions, runOptions } from '../engine.ts';
import { backend } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { humanPlan } from '../output/plan.ts';
import { print, printJson } from '../output/print.ts';
import { humanResult } from '../output/result.ts';
import { absolute } from '../paths.ts';
import { interruption, stoppedBy } from '../signals.ts';
import { LATER_STRATEGIES, notThereYet } from './later.ts';

/** Options of `commit`. */
export interface CommitOptions extends JobOptions {
  readonly format: string;
  readonly base?: string;
  readonly top?: string;
  readonly strategy: string;
  readonly drop?: boolean;
  readonly dryRun?: boolean;
  readonly pool?: readonly string[];
  readonly keepSiblings?: boolean;
  readonly invalidateSiblings?: boolean;
  readonly delete?: boolean;
  readonly cache: string;
}

/** `downfold commit`: folds the layers above base up to top into base, then relinks. */
export async function commit(file: string, options: CommitOptions): Promise<number> {
  assertThere(options);
  const engine = engineFor(file, options);
  using stop = interruption('stopping at the next consistent point; once more stops at once');
  const { run, display } = runOptions(options, stop.signal);
  const quiet = options.quiet === true;
  const json = options.output === 'json';
  let plan: CommitPlan | null = null;
  try {
    plan = await engine.plan(
      {
        file: absolute(file),
        format: options.format,
        base: options.base,
        top: options.top,
        strategy: options.strategy,
        emptyTop: await emptiesTop(file, options),
        pools: (options.pool ?? []).map(absolute),
        invalidateSiblings: options.invalidateSiblings ?? false,
      },
      { signal: stop.signal },
    );
    if (options.dryRun === true) {
      if (json) printJson(plan);
      else if (!quiet) print(humanPlan(plan));
      return 0;
    }
    const result = await engine.run(plan, {
      ...run,
      deleteIntermediates: options.delete ?? false,
    });
    display.end();
    if (json) printJson(result);
    else if (!quiet) print(humanResult(result, file));
    return 0;
  } catch (cause) {
    display.end();
    throw stoppedBy(stop, cause);
  }
}

/** @throws UsageError for what the design has and this version has not */
function assertThere({ strategy, keepSiblings, cache }: CommitOptions): void {
  if (LATER_STRATEGIES.includes(strategy))
    notThereYet(`--strategy ${strategy}`, "meanwhile '--strategy copy-down'");
  if (strategy !== 'copy-down')
    throw new UsageError(`Unknown strategy '${strategy}'; known is copy-down`);
  if (keepSiblings === true)
    notThereYet(
      '--keep-siblings',
      'meanwhile flatten the siblings first: \'qemu-img rebase -b "" SIBLING\'',
    );
  if (cache !== 'writeback')
    notThereYet(`-t ${cache}`, "leave -t out: 'writeback', with a flush wherever order matters");
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
