import { posix } from 'node:path';
import type { CommitPlan, Engine, PlanOptions, RunOptions } from '@downfold/commit';
import { type JobOptions, runJob } from './job.ts';
import { humanPlan } from './output/plan.ts';
import { printResult } from './output/print.ts';
import { humanResult } from './output/result.ts';
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
  plan: (how: PlanOptions) => Promise<CommitPlan>,
  more: RunOptions = {},
): Promise<number> {
  const early = 'stopped before anything was written';
  const { planOut } = options;
  if (options.dryRun === true || planOut !== undefined) {
    const made = await runJob(options, early, ({ signal }) => plan({ signal }));
    if (planOut !== undefined) await writePlan(posix.resolve(planOut), made);
    printResult(options, made, () => humanPlan(made, endOf(file, planOut)));
    return 0;
  }
  const [result, why] = await runJob(options, early, async (run) => {
    // nobody will see how long it may take
    const made = await plan({ signal: run.signal, estimate: false });
    return [await engine.run(made, { ...run, ...more }), made.chosen?.why ?? null];
  });
  const told = why === null ? result : { ...result, chosen: why };
  printResult(options, told, () => humanResult(result, file, why));
  return 0;
}

/** The last line of a plan that is only shown, or stored. */
function endOf(file: string, planOut: string | undefined): string {
  if (planOut === undefined) return 'Nothing was written.';
  return `No image was changed. To do this: downfold commit --plan '${planOut}' '${file}'`;
}
