import { setTimeout as sleep } from 'node:timers/promises';
import type { QmpEvent } from '@downfold/qmp';
import { CtlError } from './errors.ts';
import { type JobRow, jobsOf } from './jobs.ts';
import type { Server } from './server.ts';

/** Where following a job may stop before it is over. */
export type Stage = 'ready' | 'pending';

/** How a job ended, or at what stage it waits for its user. */
export interface JobEnd {
  readonly id: string;
  readonly type: string;
  readonly outcome: 'completed' | 'failed' | 'cancelled' | Stage;
  /** Why it failed. */
  readonly error: string | null;
  /** Bytes moved, as far as it was told. */
  readonly moved: number;
}

/** What is done on the way. */
export interface FollowHooks {
  /** Stages that end it. */
  readonly stopAt: ReadonlySet<Stage>;
  /** Called once, when the job is ready and that does not end it. */
  readonly atReady: () => Promise<void>;
  readonly onProgress: (job: JobRow) => void;
  /** Something that its user should know, in a line. */
  readonly onNote: (line: string) => void;
}

const POLL_MILLISECONDS = 500;
/** Looks in which a job may be missing before it is given up: events of its end may be on their way. */
const MISSING_LOOKS = 4;
/** QEMU's words for a job that was cancelled, where no event told of it. */
const CANCELLED = 'Operation canceled';

/**
 * Follows a job to its end, by its events, and by looking twice a second for its progress. Events are taken from before the job begins:
 * however soon it ends, how is known.
 */
export class Follower implements AsyncDisposable {
  readonly #server: Server;
  readonly #hooks: FollowHooks;
  readonly #events: ReturnType<Server['events']>;
  readonly #over = new AbortController();
  readonly #ended = Promise.withResolvers<JobEnd>();
  #id = '';
  #type = 'job';
  #moved = 0;
  #outcome: 'completed' | 'failed' | 'cancelled' | null = null;
  #error: string | null = null;
  #aborting = false;
  #isReady = false;
  #told = false;
  #missing = 0;

  /** Listens from now on, and before `begin` to nobody. */
  constructor(server: Server, hooks: FollowHooks) {
    this.#server = server;
    this.#hooks = hooks;
    this.#events = server.events();
    // who does not wait for it is told otherwise
    this.#ended.promise.catch(() => undefined);
  }

  /** Rejects when the server is gone, or the job without a word. */
  get end(): Promise<JobEnd> {
    return this.#ended.promise;
  }

  /** Follows the job of this id, which is there already, or whose events are not yet read. */
  begin(id: string): void {
    this.#id = id;
    for (const work of [this.#listen(), this.#look()]) work.catch(this.#ended.reject);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#events[Symbol.asyncDispose]();
  }

  async #listen(): Promise<void> {
    for await (const event of this.#events) await this.#hear(event);
  }

  async #look(): Promise<void> {
    const { signal } = this.#over;
    while (!signal.aborted) {
      await this.#see((await jobsOf(this.#server)).find(({ id }) => id === this.#id));
      // the end of it is no failure
      await sleep(POLL_MILLISECONDS, undefined, { signal }).catch(() => undefined);
    }
  }

  async #hear({ event, data = {} }: QmpEvent): Promise<void> {
    if ((data['id'] ?? data['device']) !== this.#id) return;
    if (typeof data['offset'] === 'number') this.#moved = data['offset'];
    switch (event) {
      case 'BLOCK_JOB_COMPLETED':
        this.#outcome = data['error'] === undefined ? 'completed' : 'failed';
        if (data['error'] !== undefined) this.#error = String(data['error']);
        break;
      case 'BLOCK_JOB_CANCELLED':
        this.#outcome = 'cancelled';
        break;
      case 'BLOCK_JOB_READY':
        await this.#ready();
        break;
      case 'BLOCK_JOB_PENDING':
        this.#stage('pending');
        break;
      case 'BLOCK_JOB_ERROR':
        this.#failed(String(data['operation']), String(data['action']));
        break;
      case 'JOB_STATUS_CHANGE':
        await this.#become(String(data['status']));
        break;
    }
  }

  async #become(status: string): Promise<void> {
    if (status === 'aborting') this.#aborting = true;
    else if (status === 'running') this.#told = false;
    else if (status === 'ready') await this.#ready();
    else if (status === 'null') this.#finish();
    // with its outcome told it is over, though it may stay to be dismissed
    else if (status === 'concluded' && this.#outcome !== null) this.#finish();
  }

  async #see(job: JobRow | undefined): Promise<void> {
    if (job === undefined) {
      this.#missing += 1;
      if (this.#missing < MISSING_LOOKS) return;
      throw new CtlError(
        'CTL_GONE',
        `job '${this.#id}' is not there any more, and the server did not tell how it ended`,
      );
    }
    this.#missing = 0;
    this.#type = job.type;
    this.#moved = job['current-progress'];
    const { status } = job;
    if (status === 'concluded') {
      this.#conclude(job);
      return;
    }
    this.#hooks.onProgress(job);
    if (status === 'ready') await this.#ready();
    else if (status === 'pending' && job['auto-finalize'] === false) this.#stage('pending');
    else if (job.paused === true && (job['io-status'] ?? 'ok') !== 'ok')
      this.#failed('read or write', 'stop');
  }

  /** A job that stays to be dismissed: of one that ended before anybody listened only its error tells. */
  #conclude({ error }: JobRow): void {
    if (error !== undefined) {
      this.#error = error;
      this.#outcome ??= error === CANCELLED ? 'cancelled' : 'failed';
    }
    this.#finish();
  }

  async #ready(): Promise<void> {
    if (this.#isReady) return;
    this.#isReady = true;
    if (!this.#stage('ready')) await this.#hooks.atReady();
  }

  #failed(operation: string, action: string): void {
    if (action !== 'stop') this.#hooks.onNote(`a ${operation} failed: ${action}`);
    else if (!this.#told) {
      this.#told = true;
      this.#hooks.onNote(
        `a ${operation} failed, and job '${this.#id}' stands still: mend what is wrong, then 'downfold ctl resume ${this.#id}'`,
      );
    }
  }

  #stage(stage: Stage): boolean {
    if (!this.#hooks.stopAt.has(stage)) return false;
    this.#settle(stage);
    return true;
  }

  #finish(): void {
    this.#settle(this.#outcome ?? (this.#aborting ? 'failed' : 'completed'));
  }

  #settle(outcome: JobEnd['outcome']): void {
    this.#ended.resolve({
      id: this.#id,
      type: this.#type,
      outcome,
      error: this.#error,
      moved: this.#moved,
    });
  }
}
