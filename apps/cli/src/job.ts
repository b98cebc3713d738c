import { type RunOptions, Throttle } from '@downfold/commit';
import { clock } from '@downfold/host';
import type { Access } from './environment.ts';
import { failureHandler, type OnError } from './on-error.ts';
import { parseBytes } from './output/bytes.ts';
import { type ProgressDisplay, progressDisplay } from './output/progress.ts';
import { interruption, stoppedBy } from './signals.ts';

/** Options that all jobs share. */
export interface JobOptions extends Access {
  readonly output: string;
  readonly progress?: boolean;
  readonly quiet?: boolean;
  readonly verify?: boolean;
  readonly rate?: string;
  readonly onError?: OnError;
  readonly afterFailedFlush?: boolean;
}

/** How work is to run that can be stopped, slowed down and watched. */
export type Running = RunOptions & Required<Pick<RunOptions, 'signal' | 'onProgress' | 'throttle'>>;

/** How a job is to run, and what shows its progress. */
export function runOptions(
  options: JobOptions,
  signal: AbortSignal,
): {
  readonly run: Running;
  readonly display: ProgressDisplay;
} {
  const display = progressDisplay({
    progress: options.progress,
    quiet: options.quiet,
    json: options.output === 'json',
  });
  const rate = options.rate === undefined ? 0 : parseBytes(options.rate, 'rate');
  const run = {
    signal,
    onProgress: display.show,
    throttle: new Throttle(rate, clock),
    verify: options.verify ?? false,
    onFailure: failureHandler(options.onError ?? 'report', signal),
    afterFailedFlush: options.afterFailedFlush ?? false,
  };
  return { run, display };
}

/**
 * Runs a job to its end, or to the consistent point at which SIGINT or SIGTERM stops it, and shows its progress.
 * @param early what to say when it was stopped before its first step
 * @throws Stopped when a signal stopped it
 */
export async function runJob<T>(
  options: JobOptions,
  early: string,
  work: (run: Running) => Promise<T>,
): Promise<T> {
  using stop = interruption('stopping at the next consistent point; once more stops at once');
  const { run, display } = runOptions(options, stop.signal);
  let whole = false;
  try {
    const result = await work(run);
    whole = true;
    return result;
  } catch (cause) {
    throw stoppedBy(stop, cause, early);
  } finally {
    display.end(whole);
  }
}
