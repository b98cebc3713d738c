import type {
  AbortResult,
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
import type { Disk, JobUse } from '../graph/disk.ts';
import type { Graph } from '../graph/graph.ts';
import { codeOf, type Log, type LogFields, lineOf } from '../log.ts';
import { JobCounters, type SectionWork } from '../metrics/job-counters.ts';
import { Place } from './place.ts';
import { type EngineCalls, EngineWork } from './work.ts';

/** How a job is started, beside what it does. */
export interface StartOptions extends Omit<JobOptions, 'id' | 'type' | 'clock' | 'emit'> {
  /** Node that stands for the job while it works; undefined: none does. */
  readonly filter?: string;
}

/** What is asked of a job. */
export type DiskRequest = Omit<PlanRequest, 'pools' | 'format'>;

/** A job under way, and what it does. */
interface Running {
  readonly job: Job;
  readonly work: EngineWork;
}

/** Jobs on disks that are in use. */
export class BlockJobs {
  readonly jobs: Jobs = new Jobs();
  readonly counters: JobCounters = new JobCounters();
  readonly #graph: Graph;
  readonly #access: Access;
  readonly #pools: readonly string[];
  readonly #emit: (event: JobEvent) => void;
  readonly #log: Log;
  readonly #running: Set<Running> = new Set();

  constructor(
    graph: Graph,
    settings: Access & { readonly pools: readonly string[] },
    emit: (event: JobEvent) => void,
    log: Log,
  ) {
    this.#graph = graph;
    this.#access = settings;
    this.#pools = settings.pools;
    this.#emit = (event) => {
      this.counters.hear(event);
      tell(event, log);
      emit(event);
    };
    this.#log = log;
  }

  /** Takes a job's place beneath a disk. @throws ServerError `SERVER_IN_USE` when another job is in the way */
  async reserve(disk: Disk, job: JobUse): Promise<Place> {
    const place = new Place(disk, job);
    disk.admit(place, (path) => this.#graph.nameOf(path));
    try {
      await disk.use(place, { writes: false });
      return place;
    } catch (cause) {
      place.release();
      throw cause;
    }
  }

  /** What a job would do. Nothing is written. @throws CommitError, ChainError, ImageError or StorageError */
  plan({ disk }: Place, request: DiskRequest): Promise<CommitPlan> {
    const { format } = disk.active.facts;
    return this.#engine(disk).plan(
      { ...request, format, pools: this.#pools },
      { live: disk.live(), estimate: false },
    );
  }

  /** Starts to do what a plan says. @throws JobError; ServerError `SERVER_NODE`, `SERVER_UNCHECKED` */
  async start(place: Place, plan: CommitPlan, options: StartOptions): Promise<Job> {
    const engine = this.#engine(place.disk);
    const leaf = plan.images[plan.chainLength - 1]?.path ?? '';
    return this.#begin(place, options, {
      total: plan.bytesToCopy + plan.bytesToZero,
      keepsFailed: false,
      run: (how) => engine.run(plan, how),
      abort: () => this.#abort(engine, place.disk, leaf),
    });
  }

  /** Starts a job that has nothing to do. @throws as `start` */
  startIdle(place: Place, options: StartOptions): Promise<Job> {
    return this.#begin(place, options, {
      total: 0,
      keepsFailed: false,
      run: async ({ beforeSwitch }) => beforeSwitch?.(),
      abort: async () => null,
    });
  }

  /** Goes on with an interrupted job whose journal lies beside `path`. @throws ServerError, JobError */
  async resume(
    disk: Disk,
    path: string,
    { plan, job, claim }: JournalSummary,
    { id = `resume-${job.slice(0, 8)}`, ...options }: Partial<StartOptions & { id: string }> = {},
  ): Promise<Job> {
    using place = await this.reserve(disk, { id, type: typeOf(plan), claim });
    const engine = this.#engine(disk);
    return await this.#begin(place, options, {
      total: plan.bytesToCopy + plan.bytesToZero,
      // it is not this server's: why it cannot go on is for the user to find out
      keepsFailed: true,
      run: (how) => engine.resume(path, { ...how, live: disk.live() }),
      abort: () => this.#abort(engine, disk, path),
    });
  }

  /** Gives up the interrupted job whose journal lies beside `path`. @throws ServerError, CommitError `COMMIT_PAST_ABORT` */
  async abandon(
    disk: Disk,
    path: string,
    { plan, job, claim }: JournalSummary,
  ): Promise<AbortResult> {
    using _place = await this.reserve(disk, { id: job, type: typeOf(plan), claim });
    // the place is held until it is done
    return await this.#abort(this.#engine(disk), disk, path);
  }

  /** Stops all jobs at a consistent point, where those that switch links already are done; their journals stay. Resolves once they work no more. */
  async stop(): Promise<void> {
    const running = [...this.#running];
    for (const { job, work } of running) {
      work.keepJournal();
      if (job.takes('cancel')) job.cancel({ force: true });
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
    place: Place,
    { filter, ...options }: StartOptions,
    calls: Omit<EngineCalls, 'over'>,
  ): Promise<Job> {
    const { disk, job: use } = place;
    const { id, type } = use;
    // whoever comes later may write to it too: there is one writer of a file
    if (place.isOnTop && !this.#graph.nodeOf(disk.active).readOnly)
      await disk.use(place, { writes: true });
    if (filter !== undefined) this.#graph.addFilter(filter, disk, use);
    let running: Running | null = null;
    const unfiltered = (): void => {
      if (filter !== undefined) this.#graph.dropFilter(filter);
    };
    const over = async (): Promise<void> => {
      unfiltered();
      await this.#leave(place);
      if (running !== null) this.#running.delete(running);
    };
    const run: EngineCalls['run'] = (how) =>
      calls.run({
        ...how,
        live: disk.live(),
        onSection: ({ what, ...times }) => this.#held(`job '${id}'`, what, times, { job: id }),
      });
    const work = new EngineWork({ ...calls, run, over }, this.#log);
    try {
      const job = this.jobs.start(work, { ...options, id, type, clock, emit: this.#emit });
      running = { job, work };
      this.#running.add(running);
      place.keep();
      return job;
    } catch (cause) {
      unfiltered();
      throw cause;
    }
  }

  /** The job did what it had to: what fails here is for whoever runs the server. */
  async #leave(place: Place): Promise<void> {
    try {
      await place.leave();
    } catch (cause) {
      this.#log.warn(
        `${place.label} is over, and a layer stays open for writing: ${lineOf(cause)}`,
        { job: place.job.id, ...codeOf(cause) },
      );
    }
  }

  async #abort(engine: Engine, disk: Disk, path: string): Promise<AbortResult> {
    const result = await engine.abort(path, { live: disk.live() });
    for (const image of result.mixed)
      this.#log.warn(`${image}: holds a part of a job that was given up, and is marked so`, {
        image,
      });
    for (const { image, why } of result.unmarked)
      this.#log.warn(
        `${image}: holds a part of a job that was given up, and is not marked: ${why}`,
        {
          image,
        },
      );
    return result;
  }
}

function typeOf({ request }: CommitPlan): JobType {
  return request.operation === 'stream' ? 'stream' : 'commit';
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
