import { CtlError } from './errors.ts';
import type { Server } from './server.ts';

/** A job under QMP's names: what `query-jobs` tells of it, and of block jobs `query-block-jobs`. Bytes, and bytes a second. */
export interface JobRow {
  readonly id: string;
  readonly type: string;
  readonly status: string;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  readonly error?: string;
  /** Of block jobs only, as all that follows: the limit; 0: none. */
  readonly speed?: number;
  readonly paused?: boolean;
  readonly ready?: boolean;
  readonly 'io-status'?: string;
  readonly 'auto-finalize'?: boolean;
  readonly 'auto-dismiss'?: boolean;
}

/** What of a block job is not under another name in `query-jobs` already. */
type BlockJob = Omit<JobRow, 'id'> & { readonly device: string };

/** All jobs. */
export async function jobsOf(server: Server): Promise<readonly JobRow[]> {
  const jobs = await server.execute<readonly JobRow[]>('query-jobs');
  const blockJobs = await server.execute<readonly BlockJob[]>('query-block-jobs');
  return jobs.map((job) => {
    const { device: _, ...more } = blockJobs.find(({ device }) => device === job.id) ?? {
      device: '',
    };
    const { len: __, offset: ___, ...members } = more as Record<string, unknown>;
    return { ...members, ...job };
  });
}

/** One job. @throws CtlError `CTL_NO_JOB` that names those there are */
export async function findJob(server: Server, id: string): Promise<JobRow> {
  const jobs = await jobsOf(server);
  const job = jobs.find((one) => one.id === id);
  if (job !== undefined) return job;
  const known = jobs.map((one) => one.id);
  const there =
    known.length === 0
      ? 'there are no jobs: one that has ended is forgotten, unless it was started with --no-auto-dismiss'
      : `there are: ${known.join(', ')}`;
  throw new CtlError('CTL_NO_JOB', `there is no job '${id}'; ${there}`, { known });
}
