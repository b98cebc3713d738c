import { setTimeout as sleep } from 'node:timers/promises';
import { formatBytes } from '@downfold/chain';
import { findJob, type JobRow, jobsOf } from '../../ctl/jobs.ts';
import { printableText, say } from '../../ctl/say.ts';
import { type Server, type ServerOptions, withServer } from '../../ctl/server.ts';
import { clock, percent } from '../../output/progress.ts';
import { table } from '../../output/table.ts';

/** A job, and how fast it is, in bytes and seconds; null: not known, or nothing moves. */
type MeasuredJob = JobRow & {
  readonly throughput: number | null;
  readonly 'eta-seconds': number | null;
};

/** Between two looks, of which the speed is told. */
const SAMPLE_MILLISECONDS = 500;
const COLUMNS = 100;

/** `downfold ctl jobs`: all jobs, or one. */
export async function jobs(id: string | undefined, options: ServerOptions): Promise<number> {
  return withServer(options, async (server) => {
    if (id !== undefined) await findJob(server, id);
    const all = await measured(server);
    const wanted = id === undefined ? all : all.filter((job) => job.id === id);
    say(options, wanted, linesOf(wanted));
    return 0;
  });
}

/** The server does not tell how fast jobs are: it is looked at them twice, if anything moves. */
async function measured(server: Server): Promise<readonly MeasuredJob[]> {
  const before = await jobsOf(server);
  if (!before.some(isMoving))
    return before.map((job) => ({ ...job, throughput: null, 'eta-seconds': null }));
  const start = performance.now();
  await sleep(SAMPLE_MILLISECONDS);
  const after = await jobsOf(server);
  const seconds = (performance.now() - start) / 1000;
  return after.map((job) => {
    const { 'current-progress': done, 'total-progress': total } = job;
    const then = before.find(({ id }) => id === job.id);
    const throughput =
      then === undefined || !isMoving(job)
        ? null
        : Math.max(0, (done - then['current-progress']) / seconds);
    const eta = throughput === null || throughput === 0 ? null : (total - done) / throughput;
    return { ...job, throughput, 'eta-seconds': eta };
  });
}

function isMoving({ status }: JobRow): boolean {
  return status === 'running';
}

function linesOf(all: readonly MeasuredJob[]): readonly string[] {
  if (all.length === 0) return ['No jobs.'];
  const rows = all.map((job) => [
    printableText(job.id),
    printableText(job.type),
    printableText(job.status),
    `${formatBytes(job['current-progress'])} of ${formatBytes(job['total-progress'])}`,
    job['total-progress'] === 0
      ? '-'
      : percent({ done: job['current-progress'], total: job['total-progress'] }),
    job.throughput === null ? '-' : `${formatBytes(Math.round(job.throughput))}/s`,
    job.speed === undefined || job.speed === 0 ? '-' : `${formatBytes(job.speed)}/s`,
    job['eta-seconds'] === null ? '-' : clock(job['eta-seconds']),
    printableText(noteOf(job)),
  ]);
  const heads = ['JOB', 'TYPE', 'STATE', 'DONE', '', 'SPEED', 'LIMIT', 'ETA', ''];
  return table([heads, ...rows], [4], COLUMNS).split('\n');
}

/** What went wrong, or what is waited for. */
function noteOf({ status, error, 'io-status': io = 'ok' }: MeasuredJob): string {
  if (error !== undefined) return error;
  if (io !== 'ok') return `stopped by an error (${io}): mend it, then 'resume'`;
  if (status === 'ready') return "needs 'complete'";
  if (status === 'pending') return "needs 'finalize'";
  if (status === 'concluded') return "needs 'dismiss'";
  return '';
}
