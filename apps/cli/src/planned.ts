import type { CommitPlan, Engine, RunOptions } from '@downfold/commit';
import { type JobOptions, runJob } from './job.ts';
import { humanPlan } from './output/plan.ts';
import { printResult } from './output/print.ts';
import { humanResult } from './output/result.ts';
import { absolute } from './paths.ts';
import { writePlan } from './plan-file.ts';

/** Options of everything that is planned before it is done. */
export interface PlannedOptions extends JobOptions {
  readonly dryRun?: boolean;
  /** Write the plan here instead of running it. */
  readonly planOut?: string;
}

/** Plans; then shows or writes the plan, or runs it. */
export async function planAndRun(
  engine: Engine,
  file: string,
  options: PlannedOptions,
  plan: (signal: AbortSignal) => Promise<CommitPlan>,
  more: RunOptions = {},
): Promise<number> {
  const early = 'stopped before anything was written';
  if (options.dryRun === true || options.planOut !== undefined) {
    const made = await runJob(options, early, ({ signal }) => plan(signal));
    if (options.planOut !== undefined) await writePlan(absolute(options.planOut), made);
    printResult(options, made, () => humanPlan(made));
    return 0;
  }
  const result = await runJob(options, early, async (run) =>
    engine.run(await plan(run.signal), { ...run, ...more }),
  );
  printResult(options, result, () => humanResult(result, file));
  return 0;
}
