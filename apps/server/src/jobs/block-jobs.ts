import type {
  CommitPlan,
  Engine,
  JournalSummary,
  PlanRequest,
  SectionTimes,
} from '@downfold/commit';
import { clock } from '@downfold/host';
import {
  type Job,
  type JobEvent,
  type JobFigures,
  type JobOptions,
  Jobs,
  type JobType,
} from '@downfold/job';
import { type Access, engineFor } from '../environment.ts';
import type { Disk, DiskUser } from '../graph/disk.ts';
import type { Log, LogFields } from '../log.ts';
import { JobCounters, type SectionWork } from '../metrics/job-counters.ts';
import { type EngineCalls, EngineWork } from './work.ts';

/** How a job is started, beside what it does. */
export type StartOptions = Omit<JobOptions, 'type' | 'clock' | 'emit'>;

/** What is asked of a job on a disk; the disk is the leaf. */
export type DiskRequest = Omit<PlanRequest, 'pools' | 'file' | 'format'>;

/** A job under way, and what it does. */
interface Running {
  readonly job: Job;
  readonly work: EngineWork;
}

/** Jobs on disks that are in use. */
export class BlockJobs {
  readonly jobs: Jobs = new Jobs();
  readonly counters: JobCounters = new JobCounters();
  readonly #access: Access;
  readonly #pools: readonly string[];
  readonly #emit: (event: JobEvent) => void;
  readonly #log: Log;
  readonly #running: Set<Running> = new Set();

  constructor(
    settings: Access & { readonly pools: readonly string[] },
    emit: (event: JobEvent) => void,
    log: Log,
  ) {
    this.#access = settings;
    this.#pools = settings.pools;
    this.#emit = (event) => {
      this.counters.hear(event);
      tell(event, log);
      emit(event);
    };
    this.#log = log;
  }

  /** What a job would do. Nothing is written. @throws CommitError, ChainError, ImageError or StorageError */
  async plan(disk: Disk, request: DiskRequest): Promise<CommitPlan> {
    disk.assertUnused('is busy', ({ isJob }) => isJob);
    const user: DiskUser = { label: 'a plan', isJob: false, needsActive: false };
    await disk.use(user, { writes: false });
    try {
      const { path, format } = disk.active.facts;
      return await this.#engine(disk).plan(
        { ...request, file: path, format, pools: this.#pools },
        { live: disk.live(), estimate: false },
      );
    } finally {
      disk.release(user);
    }
  }

  /** Starts to do what a plan says. @throws JobError */
  async start(disk: Disk, plan: CommitPlan, options: StartOptions): Promise<Job> {
    const engine = this.#engine(disk);
    const { path } = disk.active.facts;
    return this.#begin(disk, typeOf(plan), needsActive(plan), options, {
      total: plan.bytesToCopy + plan.bytesToZero,
      keepsFailed: false,
      run: (how) => engine.run(plan, how),
      abort: () => this.#abort(engine, disk, path),
    });
  }

  /** Goes on with an interrupted job whose journal lies beside `path`. @throws JobError */
  async resume(disk: Disk, path: string, journal: JournalSummary): Promise<Job> {
    const engine = this.#engine(disk);
    const { plan, job } = journal;
    const options = { id: `resume-${job.slice(0, 8)}` };
    return this.#begin(disk, typeOf(plan), needsActive(plan), options, {
      total: plan.bytesToCopy + plan.bytesToZero,
      // it is not this server's: why it cannot go on is for the user to find out
      keepsFailed: true,
      run: (how) => engine.resume(path, { ...how, live: disk.live() }),
      abort: () => this.#abort(engine, disk, path),
    });
  }

  /** Stops all jobs at a consistent point; their journals stay. Resolves once they work no more. */
  async stop(): Promise<void> {
    const running = [...this.#running];
    for (const { job, work } of running) {
      work.keepJournal();
      if (!['aborting', 'concluded', 'null'].includes(job.state)) job.cancel({ force: true });
    }
    await Promise.all(running.map(({ work }) => work.settled));
  }

  /** A snapshot was taken, which held the disk's requests for a while; null: there was nobody. */
  snapshotTaken(overlay: string, times: SectionTimes | null): void {
    if (times !== null) this.#held(overlay, 'snapshot', times, { image: overlay });
  }

  #held(who: string, work: SectionWork, times: SectionTimes, fields: LogFields): void {
    const { drainMs, workMs, held } = times;
    this.counters.section(work, times);
    this.#log.info(
      `${who}: ${work}: requests were held for ${(drainMs + workMs).toFixed(1)} ms (${held} of them)`,
      { ...fields, drainMs, workMs, held },
    );
  }

  #engine(disk: Disk): Engine {
    return engineFor(disk.active.facts.path, this.#access);
  }

  async #begin(
    disk: Disk,
    type: JobType,
    active: boolean,
    options: StartOptions,
    calls: Omit<EngineCalls, 'over'>,
  ): Promise<Job> {
    const user: DiskUser = { label: `job '${options.id}'`, isJob: true, needsActive: active };
    await disk.use(user, { writes: false });
    let running: Running | null = null;
    const work = new EngineWork(
      {
        ...calls,
        run: (how) =>
          calls.run({
            ...how,
            live: disk.live(),
            onSection: ({ what, ...times }) =>
              this.#held(`job '${options.id}'`, what, times, { job: options.id }),
          }),
        over: () => {
          disk.release(user);
          if (running !== null) this.#running.delete(running);
        },
      },
      this.#log,
    );
    try {
      const job = this.jobs.start(work, { ...options, type, clock, emit: this.#emit });
      running = { job, work };
      this.#running.add(running);
      return job;
    } catch (cause) {
      disk.release(user);
      throw cause;
    }
  }

  async #abort(engine: Engine, disk: Disk, path: string): Promise<void> {
    const { mixed } = await engine.abort(path, { live: disk.live() });
    for (const image of mixed)
      this.#log.warn(`${image}: holds a part of a job that was given up, and is marked so`, {
        image,
      });
  }
}

function typeOf({ request }: CommitPlan): JobType {
  return request.operation === 'stream' ? 'stream' : 'commit';
}

/** Whether a job copies from or to the active layer, and so cannot have another one put on top. */
function needsActive({ request, images, chainLength }: CommitPlan): boolean {
  return request.top === images[chainLength - 1]?.node;
}

/** What whoever runs the server has to know of a job. */
function tell({ event, data }: JobEvent, log: Log): void {
  if (event === 'BLOCK_JOB_COMPLETED')
    (data.error === undefined ? log.info : log.error)(storyOf(data), {
      job: data.device,
      bytes: data.offset,
    });
  else if (event === 'BLOCK_JOB_ERROR')
    log.warn(`job '${data.device}': a ${data.operation} failed: ${data.action}`, {
      job: data.device,
    });
  else if (event === 'JOB_STATUS_CHANGE')
    log.debug(`job '${data.id}': ${data.status}`, { job: data.id });
}

function storyOf({ device, error, offset }: JobFigures & { readonly error?: string }): string {
  const how = error === undefined ? 'completed' : `failed: ${error}`;
  return `job '${device}': ${how} (${offset} bytes)`;
}
