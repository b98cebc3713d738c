import { formatBytes } from '@downfold/chain';
import { QmpError } from '@downfold/qmp';
import { printError } from '../output/print.ts';
import { type ProgressDisplay, progressDisplay } from '../output/progress.ts';
import { stderr } from '../output/streams.ts';
import { type Interruption, interruption, Stopped } from '../signals.ts';
import { CtlError } from './errors.ts';
import { Follower, type JobEnd, type Stage } from './follow.ts';
import type { JobRow } from './jobs.ts';
import { printableText, say } from './say.ts';
import type { Server, ServerOptions } from './server.ts';

/** Options of everything that can wait for a job. */
export interface WaitOptions extends ServerOptions {
  readonly wait?: boolean;
  readonly progress?: boolean;
  /** When it is interrupted, or the time is up, the job is cancelled. */
  readonly orCancel?: boolean;
}

/** What is waited for. */
export interface WaitWish {
  /** Default: ready and pending, where nothing happens unless a user wants it. */
  readonly stopAt?: readonly Stage[];
  /** What to do with a job that is ready. */
  readonly ending?: 'pivot' | 'keep' | undefined;
  /** That the job is cancelled is what was asked for. */
  readonly cancelling?: boolean;
}

/**
 * Waits for a job that `start` starts, or finds, and whose id it returns. Resolves with the exit code of a job that ended well. Ctrl-C, SIGTERM
 * and the end of `--timeout` leave it to the server, which goes on with it; with `--or-cancel` they cancel it.
 * @throws CtlError, or Stopped, for every other end
 */
export async function waitFor(
  server: Server,
  options: WaitOptions,
  { stopAt = ['ready', 'pending'], ending, cancelling = false }: WaitWish,
  start: () => Promise<string>,
): Promise<number> {
  let job = '';
  const display = displayFor(options);
  await using follower = new Follower(server, {
    stopAt: new Set(stopAt.filter((stage) => stage !== 'ready' || ending === undefined)),
    atReady: async () => {
      if (ending !== undefined) await endReady(server, job, ending);
    },
    onProgress: (row) => display.show(progressOf(row)),
    onNote: (line) => note(options, line),
  });
  using stop = interruption(
    options.orCancel === true ? 'cancelling the job; once more leaves it' : 'leaving the job',
  );
  // from here on the time is that of the job, and not of an answer
  const limits: Limits = { stop, deadline: server.deadline };
  server.deadline = null;
  job = await started(start, limits, options);
  follower.begin(job);
  let end: JobEnd | null = null;
  try {
    end = await ended(server, follower, job, limits, options);
  } catch (cause) {
    throw cause instanceof CtlError || cause instanceof Stopped ? cause : lost(cause, job);
  } finally {
    display.end(end?.outcome === 'completed');
  }
  return told(end, options, cancelling);
}

/** Ends a job that is ready: its base becomes the disk, or stays a copy of this moment. */
export async function endReady(server: Server, id: string, how: 'pivot' | 'keep'): Promise<void> {
  if (how === 'pivot') await server.execute('job-complete', { id });
  else await server.execute('block-job-cancel', { device: id });
}

/** What may come before the end of a job. */
interface Limits {
  readonly stop: Interruption;
  readonly deadline: AbortSignal | null;
}

/** Starts the job. What shall be cancelled is waited for: before the server has answered there is nothing to cancel. */
async function started(
  start: () => Promise<string>,
  limits: Limits,
  { orCancel }: WaitOptions,
): Promise<string> {
  const job = await (orCancel === true ? start() : Promise.race([start(), reached(limits)]));
  if (job !== null) return job;
  throw leaving(
    limits,
    "before the server has answered: the job may have started; 'downfold ctl jobs' shows it",
  );
}

/** The end of the job, unless a signal or the end of the time comes first. */
async function ended(
  server: Server,
  follower: Follower,
  job: string,
  limits: Limits,
  options: WaitOptions,
): Promise<JobEnd> {
  const first = await Promise.race([follower.end, reached(limits)]);
  if (first !== null) return first;
  if (options.orCancel !== true)
    throw leaving(
      limits,
      `but job '${job}' goes on in the server: 'downfold ctl wait ${job}' waits again, 'downfold ctl cancel ${job}' gives it up`,
    );
  try {
    await server.execute('job-cancel', { id: job });
  } catch (cause) {
    // it may have ended meanwhile: its end tells
    if (!(cause instanceof QmpError)) throw cause;
  }
  const end = await follower.end;
  if (end.outcome === 'cancelled') throw leaving(limits, `and job '${job}' was cancelled`);
  return end;
}

/** What to throw when a limit was reached; `what` follows on why. */
function leaving({ stop }: Limits, what: string): Error {
  if (stop.exitCode === null) return new CtlError('CTL_TIMEOUT', `the time is up, ${what}`);
  const { reason } = stop.signal;
  return new Stopped(stop.exitCode, `${String(reason.message)}, ${what}`, reason);
}

/** Resolves with null at the first limit, and never without one. */
function reached({ stop, deadline }: Limits): Promise<null> {
  return Promise.race([stop.signal, deadline].map(abortOf));
}

/** Resolves when the signal is aborted, and never without one. */
function abortOf(signal: AbortSignal | null): Promise<null> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) resolve(null);
    signal?.addEventListener('abort', () => resolve(null), { once: true });
  });
}

function told(end: JobEnd, options: WaitOptions, cancelling: boolean): number {
  const { id, outcome, error } = end;
  const details = { job: id, outcome };
  if (outcome === 'failed')
    throw new CtlError(
      'CTL_JOB_FAILED',
      `job '${id}' failed: ${error ?? 'the server does not say why'}`,
      details,
    );
  if (outcome === 'cancelled' && !cancelling)
    throw new CtlError('CTL_JOB_CANCELLED', `job '${id}' was cancelled`, details);
  say(options, end, [storyOf(end)]);
  return 0;
}

function storyOf({ id, outcome, moved }: JobEnd): string {
  switch (outcome) {
    case 'ready':
      return `Job '${id}' is ready, and follows what is written. 'downfold ctl complete ${id}' makes base the disk; with --keep base becomes a copy of that moment.`;
    case 'pending':
      return `Job '${id}' is done but for the switch: 'downfold ctl finalize ${id}', or 'downfold ctl cancel ${id}'.`;
    case 'cancelled':
      return `Job '${id}' was cancelled.`;
    default:
      return `Job '${id}' completed: ${formatBytes(moved)} done.`;
  }
}

/** Not known how it ended: who asked for it has to look. */
function lost(cause: unknown, job: string): unknown {
  if (!(cause instanceof Error) || !('code' in cause) || cause.code !== 'QMP_CLOSED') return cause;
  return new CtlError(
    'CTL_GONE',
    `the server is gone while job '${job}' was under way (${cause.message}), and how far it came is not known; started with '--resume', downfoldd goes on with it, and 'downfold info' tells what the disk is`,
    { job },
    cause,
  );
}

function progressOf(job: JobRow): Parameters<ProgressDisplay['show']>[0] {
  return {
    phase: printableText(job.status === 'running' ? job.type : job.status),
    done: job['current-progress'],
    total: job['total-progress'],
  };
}

function displayFor({ progress, quiet, output }: WaitOptions): ProgressDisplay {
  return progressDisplay({ progress, quiet, json: output === 'json', lines: true });
}

/** Beneath a bar, if there is one. */
function note({ quiet }: WaitOptions, line: string): void {
  if (quiet === true) return;
  printError(`${stderr().isTTY ? '\n' : ''}downfold: ${printableText(line)}`);
}
