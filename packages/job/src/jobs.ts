import { JobError } from './errors.ts';
import { Job, type JobOptions } from './job.ts';
import type { JobWork } from './work.ts';

/** Jobs by their ids, in the order in which they were made. */
export class Jobs {
  readonly #jobs: Map<string, Job> = new Map();

  /** Makes a job, which begins at once. @throws JobError `JOB_BAD_ID` or `JOB_EXISTS` */
  start(work: JobWork, options: JobOptions): Job {
    const { id } = options;
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(id))
      throw new JobError('JOB_BAD_ID', `Invalid job ID '${id}'`, { job: id });
    if (this.#jobs.has(id))
      throw new JobError('JOB_EXISTS', `Job ID '${id}' already in use`, { job: id });
    const job = new Job(work, options);
    this.#jobs.set(id, job);
    void job.over.then(() => this.#jobs.delete(id));
    return job;
  }

  /** @throws JobError `JOB_NOT_FOUND` */
  find(id: string): Job {
    const job = this.#jobs.get(id);
    if (job !== undefined) return job;
    throw new JobError('JOB_NOT_FOUND', 'Job not found', { job: id });
  }

  /** Those that are not over. */
  [Symbol.iterator](): IterableIterator<Job> {
    return this.#jobs.values();
  }
}
