import type { SectionReport, SectionTimes } from '@downfold/commit';
import type { ErrorAction, JobEvent, JobType } from '@downfold/job';
import { Distribution } from './distribution.ts';

/** How a job ended. */
const ENDINGS = ['completed', 'failed', 'cancelled'] as const;
type Ending = (typeof ENDINGS)[number];

const TYPES: readonly JobType[] = ['commit', 'stream'];
const OPERATIONS = ['read', 'write'] as const;
const ACTIONS: readonly ErrorAction[] = ['report', 'stop', 'ignore'];
/** What requests of a disk are held for. */
export type SectionWork = SectionReport['what'] | 'snapshot';
const SECTIONS: readonly SectionWork[] = ['reopen', 'relink', 'publish', 'pivot', 'snapshot'];

/** A number under each combination of some names. */
class Tally<A extends string, B extends string> {
  readonly #counts: Map<string, { readonly names: readonly [A, B]; count: number }> = new Map();

  constructor(first: readonly A[], second: readonly B[]) {
    for (const a of first)
      for (const b of second) this.#counts.set(`${a} ${b}`, { names: [a, b], count: 0 });
  }

  add(a: A, b: B): void {
    const one = this.#counts.get(`${a} ${b}`);
    if (one !== undefined) one.count += 1;
  }

  [Symbol.iterator](): Iterator<{ readonly names: readonly [A, B]; readonly count: number }> {
    return this.#counts.values();
  }
}

/** What became of jobs, since the server started. */
export class JobCounters {
  readonly ended: Tally<JobType, Ending> = new Tally(TYPES, ENDINGS);
  readonly errors: Tally<'read' | 'write', ErrorAction> = new Tally(OPERATIONS, ACTIONS);
  /** Bytes that jobs have moved. */
  readonly moved: Map<JobType, number> = new Map(TYPES.map((type) => [type, 0]));
  /** How long requests of a disk were held, by what for. */
  readonly sections: ReadonlyMap<SectionWork, Distribution> = new Map(
    SECTIONS.map((what) => [what, new Distribution()]),
  );
  /** Requests that were held. */
  held = 0;
  /** Jobs that have failed and are still there, with their errors. */
  readonly failed: Map<string, string> = new Map();
  /** How far each job was when it was last looked at. */
  readonly #seen: Map<string, number> = new Map();

  hear({ event, data }: JobEvent): void {
    switch (event) {
      case 'BLOCK_JOB_COMPLETED':
        this.progress(data.device, data.type, data.offset);
        this.ended.add(data.type, data.error === undefined ? 'completed' : 'failed');
        if (data.error !== undefined) this.failed.set(data.device, data.error);
        return;
      case 'BLOCK_JOB_CANCELLED':
        this.progress(data.device, data.type, data.offset);
        this.ended.add(data.type, 'cancelled');
        return;
      case 'BLOCK_JOB_ERROR':
        this.errors.add(data.operation, data.action);
        return;
      case 'JOB_STATUS_CHANGE':
        if (data.status !== 'null') return;
        this.failed.delete(data.id);
        this.#seen.delete(data.id);
        return;
      default:
    }
  }

  /** A job is at `offset` bytes; less than before when it has to do something again. */
  progress(id: string, type: JobType, offset: number): void {
    const more = Math.max(0, offset - (this.#seen.get(id) ?? 0));
    this.#seen.set(id, offset);
    this.moved.set(type, (this.moved.get(type) ?? 0) + more);
  }

  section(work: SectionWork, { drainMs, workMs, held }: SectionTimes): void {
    this.sections.get(work)?.observe((drainMs + workMs) / 1000);
    this.held += held;
  }
}
