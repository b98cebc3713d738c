import { engineFor } from '../engine.ts';
import { type JobOptions, runJob } from '../job.ts';
import { printResult } from '../output/print.ts';
import { humanResult } from '../output/result.ts';
import { absolute } from '../paths.ts';

/** Options of `resume`. */
export interface ResumeOptions extends JobOptions {
  readonly delete?: boolean;
}

/** `downfold resume`: goes on with the job whose journal lies beside FILE. */
export async function resume(file: string, options: ResumeOptions): Promise<number> {
  const engine = engineFor(file, options);
  const early = `stopped before anything more was written; go on with: downfold resume '${file}'`;
  const deleteIntermediates = options.delete ?? false;
  const result = await runJob(options, early, (run) =>
    engine.resume(absolute(file), { ...run, deleteIntermediates }),
  );
  printResult(options, result, () => humanResult(result, file));
  return 0;
}
