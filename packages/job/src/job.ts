import { type Clock, Throttle } from '@downfold/commit';
import { JobError } from './errors.ts';
import type { ErrorAction, JobEvent, JobFigures, JobType } from './events.ts';
import { Patience } from './patience.ts';
import { type JobState, type JobVerb, NEXT, TAKEN } from './states.ts';
import type { Ending, JobControl, JobWork } from './work.ts';

/** What is done about a failed read or write; `enospc`: stop when there is no space, else report. */
export type OnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';

/** How a job is made. */
export interface JobOptions {
  readonly id: string;
  readonly type: JobType;
  /** Bytes a second; 0: no limit. Default 0. */
  readonly speed?: number;
  /** Default `report`. */
  readonly onError?: OnError;
  /** False: wait in `pending` for `finalize`. Default true. */
  readonly autoFinalize?: boolean;
  /** False: wait in `concluded` for `dismiss`. Default true. */
  readonly autoDismiss?: boolean;
  readonly clock: Clock;
  /** Called with each event, in order. Must not throw. */
  readonly emit: (event: JobEvent) => void;
}

/** What `query-jobs` tells. */
export interface JobInfo {
  readonly id: string;
  readonly type: JobType;
  readonly status: JobState;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  readonly error?: string;
}

/** What `query-block-jobs` tells. */
export interface BlockJobInfo extends JobFigures {
  readonly busy: boolean;
  readonly paused: boolean;
  readonly ready: boolean;
  readonly status: JobState;
  readonly 'io-status': 'ok' | 'failed' | 'nospace';
  readonly 'auto-finalize': boolean;
  readonly 'auto-dismiss': boolean;
  readonly error?: string;
}

/** QEMU's words for a cancellation that nobody sees as one. */
const CANCELLED = 'Operation canceled';

/**
 * One job: QEMU's states and verbs around some work. Verbs take effect at the next point where the work asks for leave (`pass`), as in
 * QEMU. Source: QEMU's job.c and blockjob.c; facts on QEMU, 2.6.
 */
export class Job {
  readonly id: string;
  readonly type: JobType;
  /** Resolves when the job has done all it will do. Never rejects. */
  readonly concluded: Promise<void>;
  /** Resolves when the job is over and nobody waits for it any more (`null`). Never rejects. */
  readonly over: Promise<void>;
  readonly #options: JobOptions;
  readonly #work: JobWork;
  readonly #cancelled = new AbortController();
  readonly #throttle: Throttle;
  readonly #finalized = Promise.withResolvers<void>();
  readonly #dismissed = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<Ending>();
  readonly #concluded = Promise.withResolvers<void>();
  #state: JobState = 'created';
  #ending: Ending | null = null;
  #paused: PromiseWithResolvers<void> | null = null;
  /** Resolves at the next pause. */
  #pausing: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #patience = new Patience();
  /** Ends the wait before the next try. */
  #waiting: AbortController | null = null;
  /** How many parts of the work stand still. */
  #standing = 0;
  #wasReady = false;
  /** The part that others see has begun: there is no way back. */
  #isSwitching = false;
  #speed: number;
  #done = 0;
  #total = 0;
  #ioStatus: BlockJobInfo['io-status'] = 'ok';
  #error: string | null = null;

  constructor(work: JobWork, options: JobOptions) {
    this.id = options.id;
    this.type = options.type;
    this.#work = work;
    this.#options = options;
    this.#speed = options.speed ?? 0;
    this.#throttle = new Throttle(this.#speed, options.clock);
    // a wait for the user that a cancellation ended is nobody's failure
    this.#ended.promise.catch(() => undefined);
    this.#finalized.promise.catch(() => undefined);
    this.concluded = this.#concluded.promise;
    this.#tell('created');
    this.over = this.#live();
  }

  get state(): JobState {
    return this.#state;
  }

  /** Whether a verb may be asked of it now. Once links are being switched a job cannot be cancelled, although it is still `pending`. */
  takes(verb: JobVerb): boolean {
    return TAKEN[verb].includes(this.#state) && !(verb === 'cancel' && this.#isSwitching);
  }

  /** @throws JobError `JOB_REFUSED` when it is paused already, or as all verbs `JOB_WRONG_STATE` */
  pause(): void {
    this.#assertTaken('pause');
    if (this.#paused !== null) throw refused(this.id, 'Job is already paused');
    this.#paused = Promise.withResolvers();
    this.#pausing.resolve();
    this.#pausing = Promise.withResolvers();
    this.#waiting?.abort();
    // who waits for the speed stands still now, and not first when it would go on
    this.#throttle.setRate(this.#speed);
  }

  /** @throws JobError */
  resume(): void {
    this.#assertTaken('resume');
    if (this.#paused === null) throw refused(this.id, "Can't resume a job that was not paused");
    this.#ioStatus = 'ok';
    this.#unpause();
  }

  /** @param speed bytes a second; 0: no limit. @throws JobError */
  setSpeed(speed: number): void {
    this.#assertTaken('set-speed');
    if (!Number.isSafeInteger(speed) || speed < 0)
      throw new JobError('JOB_BAD_SPEED', "Parameter 'speed' expects a non-negative value", {
        job: this.id,
      });
    this.#speed = speed;
    this.#throttle.setRate(speed);
  }

  /**
   * Ends a ready job with its data in place and the links as they were (soft), or any job at once (`force`, and always before it is ready).
   * One that is paused, by somebody or by an error, only with `force`, as in QEMU. @throws JobError also once links are being switched: who asks then is too late
   */
  cancel({ force }: { readonly force: boolean }): void {
    this.#assertTaken('cancel');
    if (!force && this.#paused !== null)
      throw refused(this.id, `The block job for device '${this.id}' is currently paused`);
    if (!force && this.#wasReady && MOVES.has(this.#state)) {
      this.#end('cancel');
      return;
    }
    this.#cancelled.abort(new Error(CANCELLED));
    this.#ended.reject(this.#cancelled.signal.reason);
    this.#finalized.reject(this.#cancelled.signal.reason);
    this.#unpause();
  }

  /** Ends a ready job as it was meant. @throws JobError */
  complete(): void {
    this.#assertTaken('complete');
    if (this.#cancelled.signal.aborted || this.#ending !== null)
      throw refused(this.id, `The active block job '${this.id}' cannot be completed`);
    this.#end('complete');
  }

  /** Switches what others see; only without `auto-finalize`. @throws JobError */
  finalize(): void {
    this.#assertTaken('finalize');
    this.#finalized.resolve();
  }

  /** Lets a job be forgotten that is over; only without `auto-dismiss`. @throws JobError */
  dismiss(): void {
    this.#assertTaken('dismiss');
    this.#dismissed.resolve();
  }

  info(): JobInfo {
    return {
      id: this.id,
      type: this.type,
      status: this.#state,
      'current-progress': this.#done,
      'total-progress': this.#total,
      ...(this.#error === null ? {} : { error: this.#error }),
    };
  }

  blockInfo(): BlockJobInfo {
    const { autoFinalize = true, autoDismiss = true } = this.#options;
    return {
      ...this.#figures(),
      busy: this.#standing === 0 && MOVES.has(this.#state),
      paused: this.#paused !== null,
      ready: this.#state === 'ready' || this.#state === 'standby',
      status: this.#state,
      'io-status': this.#ioStatus,
      'auto-finalize': autoFinalize,
      'auto-dismiss': autoDismiss,
      ...(this.#error === null ? {} : { error: this.#error }),
    };
  }

  async #live(): Promise<void> {
    // who made the job has it before anything is done
    await Promise.resolve();
    try {
      await this.#carryOut();
      this.#emit({ event: 'BLOCK_JOB_COMPLETED', data: this.#figures() });
    } catch (cause) {
      await this.#abort(cause);
    }
    this.#become('concluded');
    this.#concluded.resolve();
    if (this.#options.autoDismiss === false) await this.#dismissed.promise;
    this.#become('null');
  }

  async #carryOut(): Promise<void> {
    const { signal } = this.#cancelled;
    signal.throwIfAborted();
    this.#become('running');
    await this.#work.run(this.#control());
    // a paused job switches nothing, though all its data may be in place
    await this.#whilePaused();
    this.#become('waiting');
    this.#become('pending');
    if (this.#options.autoFinalize === false) {
      this.#emit({ event: 'BLOCK_JOB_PENDING', data: { type: this.type, id: this.id } });
      await this.#finalized.promise;
    }
    // the last moment for a cancellation, which may have come right behind `finalize`
    signal.throwIfAborted();
    this.#isSwitching = true;
    await this.#work.finish(this.#ending ?? 'complete');
  }

  async #abort(cause: unknown): Promise<void> {
    const { signal } = this.#cancelled;
    const cancelled = signal.aborted && cause === signal.reason;
    this.#standStill(0);
    this.#error = cause instanceof Error ? cause.message : String(cause);
    this.#become('aborting');
    const outcome = await this.#work.giveUp();
    if (!cancelled && outcome !== null) this.#error += `; ${outcome}`;
    const data = this.#figures();
    if (cancelled) this.#emit({ event: 'BLOCK_JOB_CANCELLED', data });
    else this.#emit({ event: 'BLOCK_JOB_COMPLETED', data: { ...data, error: this.#error } });
  }

  #control(): JobControl {
    const job = this;
    const { signal } = this.#cancelled;
    return {
      signal,
      get state() {
        return job.#state;
      },
      get ending() {
        return job.#ending;
      },
      get atOnce() {
        return job.#paused === null ? job.#throttle.atOnce : 0;
      },
      pass: async (bytes) => {
        await this.#whilePaused();
        await this.#throttle.pass(bytes, signal);
        await this.#whilePaused();
      },
      progress: (done, total) => {
        this.#done = done;
        this.#total = total;
      },
      failed: (operation, cause) => this.#failed(operation, cause),
      ready: () => {
        this.#wasReady = true;
        this.#become('ready');
        this.#emit({ event: 'BLOCK_JOB_READY', data: this.#figures() });
      },
      ended: () => this.#untilEnded(),
    };
  }

  /** Work that waits for its user asks for no leave: a pause is noticed here. */
  async #untilEnded(): Promise<Ending> {
    for (;;) {
      await Promise.race([this.#ended.promise, this.#pausing.promise]);
      await this.#whilePaused();
      if (this.#ending !== null) return this.#ending;
    }
  }

  async #failed(
    operation: 'read' | 'write',
    { noSpace }: { readonly noSpace: boolean },
  ): Promise<'again' | 'give up'> {
    // one that nobody could resume, as at its very end, does not stand still
    const canWait = TAKEN.resume.includes(this.#state);
    const action = canWait ? actionOf(this.#options.onError ?? 'report', noSpace) : 'report';
    this.#emit({ event: 'BLOCK_JOB_ERROR', data: { device: this.id, operation, action } });
    if (action === 'report') return 'give up';
    if (action === 'stop') {
      this.#ioStatus = noSpace ? 'nospace' : 'failed';
      this.#paused ??= Promise.withResolvers();
    }
    if (this.#paused === null) await this.#waitForNextTry();
    await this.#whilePaused();
    return 'again';
  }

  /** What nobody mends would fail at once again. A pause ends the wait: who resumes the job has it tried. */
  async #waitForNextTry(): Promise<void> {
    const { signal } = this.#cancelled;
    const waiting = new AbortController();
    this.#waiting = waiting;
    const either = AbortSignal.any([signal, waiting.signal]);
    try {
      await this.#options.clock.sleep(this.#patience.next(this.#done), either);
    } catch (cause) {
      signal.throwIfAborted();
      if (!waiting.signal.aborted) throw cause;
    }
  }

  /** Stands still while the job is paused. Its state says so from here on: up to here the work went on. */
  async #whilePaused(): Promise<void> {
    while (this.#paused !== null) {
      const { promise } = this.#paused;
      this.#standStill(this.#standing + 1);
      await promise;
      this.#standStill(Math.max(0, this.#standing - 1));
    }
    this.#cancelled.signal.throwIfAborted();
  }

  #standStill(standing: number): void {
    this.#standing = standing;
    const still = standing > 0;
    if (still && this.#state === 'running') this.#become('paused');
    else if (still && this.#state === 'ready') this.#become('standby');
    else if (!still && this.#state === 'paused') this.#become('running');
    else if (!still && this.#state === 'standby') this.#become('ready');
  }

  #unpause(): void {
    this.#paused?.resolve();
    this.#paused = null;
  }

  #end(ending: Ending): void {
    this.#ending = ending;
    this.#ended.resolve(ending);
  }

  #assertTaken(verb: JobVerb): void {
    if (this.takes(verb)) return;
    throw new JobError(
      'JOB_WRONG_STATE',
      `Job '${this.id}' in state '${this.#state}' cannot accept command verb '${verb}'`,
      { job: this.id, state: this.#state, verb },
    );
  }

  #become(state: JobState): void {
    if (!NEXT[this.#state].includes(state))
      throw new Error(`a job cannot go from ${this.#state} to ${state}`);
    this.#state = state;
    this.#tell(state);
  }

  #tell(status: JobState): void {
    this.#emit({ event: 'JOB_STATUS_CHANGE', data: { id: this.id, status } });
  }

  #emit(event: JobEvent): void {
    this.#options.emit(event);
  }

  #figures(): JobFigures {
    return {
      type: this.type,
      device: this.id,
      len: this.#total,
      offset: this.#done,
      speed: this.#speed,
    };
  }
}

const MOVES: ReadonlySet<JobState> = new Set(['running', 'paused', 'ready', 'standby']);

function actionOf(policy: OnError, noSpace: boolean): ErrorAction {
  if (policy === 'enospc' || policy === 'auto') return noSpace ? 'stop' : 'report';
  return policy;
}

function refused(job: string, message: string): JobError {
  return new JobError('JOB_REFUSED', message, { job });
}
