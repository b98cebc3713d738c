import { engineFor, type JobOptions, runOptions } from '../engine.ts';
import { print, printJson } from '../output/print.ts';
import { humanResult } from '../output/result.ts';
import { absolute } from '../paths.ts';
import { interruption, stoppedBy } from '../signals.ts';

/** `downfold resume`: goes on with the commit whose journal lies beside FILE. */
export async function resume(file: string, options: JobOptions): Promise<number> {
  const engine = engineFor(file, options);
  using stop = interruption('stopping at the next consistent point; once more stops at once');
  const { run, display } = runOptions(options, stop.signal);
  try {
    const result = await engine.resume(absolute(file), run);
    display.end();
    if (options.output === 'json') printJson(result);
    else if (options.quiet !== true) print(humanResult(result, file));
    return 0;
  } catch (cause) {
    display.end();
    throw stoppedBy(stop, cause);
  }
}
