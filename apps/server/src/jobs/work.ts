import { type AbortResult, CommitError, type RunOptions } from '@downfold/commit';
import type { JobControl, JobWork } from '@downfold/job';
import { DownfoldError } from '@downfold/units';
import { codeOf, type Log, lineOf } from '../log.ts';

/** What a job runs: `engine.run` or `engine.resume` with everything settled but how it is run. */
export interface EngineCalls {
  /** Bytes that will be moved, as far as it is known before. */
  readonly total: number;
  run(options: RunOptions): Promise<unknown>;
  /** A job that fails keeps its journal; only one that is cancelled is given up. */
  readonly keepsFailed: boolean;
  /** Gives the job up: links as they were. Null: there was nothing to give up. */
  abort(): Promise<AbortResult | null>;
  /** Called once nothing works any more, however it ended. Must not fail. */
  over(): Promise<void>;
}

/** A run of the engine as a job: `run` until all data is in place, `finish` for what others see. */
export class EngineWork implements JobWork {
  readonly #calls: EngineCalls;
  readonly #log: Log;
  readonly #inPlace = Promise.withResolvers<void>();
  readonly #goOn = Promise.withResolvers<void>();
  readonly #settled = Promise.withResolvers<void>();
  #whole: Promise<unknown> | null = null;
  #stays = false;
  #isCancelled = false;

  constructor(calls: EngineCalls, log: Log) {
    this.#calls = calls;
    this.#log = log;
    // nobody waits for it when the job ended before
    this.#goOn.promise.catch(() => undefined);
  }

  /** Resolves once the images are no more this job's. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** From now on a job that is cancelled is not given up: its journal stays, and it can be gone on with. */
  keepJournal(): void {
    this.#stays = true;
  }

  async run(control: JobControl): Promise<void> {
    const { signal } = control;
    control.progress(0, this.#calls.total);
    const stop = (): void => {
      this.#isCancelled = true;
      this.#goOn.reject(signal.reason);
    };
    signal.addEventListener('abort', stop, { once: true });
    const whole = this.#calls
      .run({
        signal,
        throttle: control,
        onProgress: ({ phase, done, total }) => {
          if (phase === 'copy') control.progress(done, total);
        },
        onFailure: async ({ error }) =>
          (await control.failed(operationOf(error), {
            noSpace: error.code === 'STORAGE_NO_SPACE',
          })) === 'again',
        beforeSwitch: async () => {
          this.#inPlace.resolve();
          await this.#goOn.promise;
        },
        active: { ready: () => control.ready(), ended: () => control.ended() },
      })
      .catch((cause: unknown) => {
        throw isCancellation(cause, signal) ? signal.reason : withoutAdvice(cause);
      });
    this.#whole = whole;
    // the last one to hear of it is `finish` or `giveUp`
    whole.catch(() => undefined);
    await Promise.race([whole, this.#inPlace.promise]);
  }

  async finish(): Promise<void> {
    this.#goOn.resolve();
    await this.#whole;
    await this.#end();
  }

  async giveUp(): Promise<string | null> {
    this.#goOn.reject(new Error('the job is given up'));
    try {
      await this.#whole;
    } catch {
      // what it failed with is the job's error already
    }
    const outcome = await this.#abort();
    await this.#end();
    return outcome;
  }

  /** Resolves with what became of the job; null: it has no journal. */
  async #abort(): Promise<string | null> {
    if (this.#stays || (this.#calls.keepsFailed && !this.#isCancelled)) return JOURNAL_STAYS;
    try {
      const result = await this.#calls.abort();
      if (result === null) return null;
      const { mixed, unmarked } = result;
      const lost = [...mixed, ...unmarked.map(({ image }) => image)];
      return lost.length === 0
        ? 'the job was given up: all images read as before'
        : `the job was given up; a part of it is in: ${lost.join(', ')}`;
    } catch (cause) {
      if (cause instanceof CommitError && cause.code === 'COMMIT_NO_JOURNAL') return null;
      this.#log.error(
        `a job could not be given up, and its journal stays: ${lineOf(cause)}`,
        codeOf(cause),
      );
      return `the job could not be given up; ${JOURNAL_STAYS}`;
    }
  }

  async #end(): Promise<void> {
    await this.#calls.over();
    this.#settled.resolve();
  }
}

const JOURNAL_STAYS = 'its journal stays: x-journal-resume, or x-journal-abort';

/** What the engine says, without how users of the command line go on. */
function withoutAdvice(cause: unknown): unknown {
  if (!(cause instanceof CommitError && cause.code === 'COMMIT_STOPPED')) return cause;
  return new CommitError(cause.code, String(cause.details['happened']), cause.details, cause.cause);
}

function isCancellation(cause: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false;
  return (
    cause === signal.reason || (cause instanceof CommitError && cause.code === 'COMMIT_CANCELLED')
  );
}

/** What failed, as far as the error tells: the system's call. */
function operationOf(error: Error): 'read' | 'write' {
  const call = error instanceof DownfoldError ? String(error.details['call']) : '';
  return call.includes('read') ? 'read' : 'write';
}
