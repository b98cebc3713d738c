import type { JournalSummary } from '@downfold/commit';
import { DownfoldError } from '@downfold/units';
import type { Disk } from '../graph/disk.ts';
import type { Log } from '../log.ts';
import type { BlockJobs } from './block-jobs.ts';
import type { Journals } from './journals.ts';

/** What interrupted jobs are gone on with. */
export interface Recovery {
  readonly journals: Journals;
  readonly jobs: BlockJobs;
  /** Goes on with them; else they are only reported. */
  readonly resume: boolean;
  readonly log: Log;
}

/** Reports the interrupted jobs that a start finds, or goes on with them. Resolves with how many there are. */
export async function recover({ journals, jobs, resume, log }: Recovery): Promise<number> {
  const found = await journals.find();
  for (const { disk, path, journal } of found) {
    log.warn(`${path}: ${storyOf(journal)}`, { image: path });
    if (resume) {
      const work = journal.aborting ? finishAbort : goOn;
      await orSaid(path, journal, log, () => work(disk, path, journal, { jobs, log }));
    } else
      log.warn(
        journal.aborting
          ? `${path}: serving it all the same; finish giving it up: downfoldd --resume, or x-journal-abort`
          : `${path}: serving it all the same; go on with it: downfoldd --resume, or x-journal-resume; give it up: x-journal-abort`,
        { image: path },
      );
  }
  return found.length;
}

type Recovering = Pick<Recovery, 'jobs' | 'log'>;

async function goOn(
  disk: Disk,
  path: string,
  journal: JournalSummary,
  { jobs, log }: Recovering,
): Promise<void> {
  const job = await jobs.resume(disk, path, journal);
  log.info(`${path}: goes on as job '${job.id}'`, { image: path, job: job.id });
}

async function finishAbort(
  disk: Disk,
  path: string,
  journal: JournalSummary,
  { jobs, log }: Recovering,
): Promise<void> {
  const { mixed } = await jobs.abandon(disk, path, journal);
  log.info(`${path}: giving the job up is finished`, { image: path, mixed: mixed.join() });
}

/** A job that cannot be recovered yet, as for want of an image, is reported, and the disk is served all the same. */
async function orSaid(
  path: string,
  { aborting }: JournalSummary,
  log: Log,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (!(cause instanceof DownfoldError)) throw cause;
    const [what, then] = aborting
      ? ['given up', 'x-journal-abort']
      : ['gone on with', 'x-journal-resume, or x-journal-abort'];
    log.warn(`${path}: the job could not be ${what}: ${cause.message}; then: ${then}`, {
      image: path,
    });
  }
}

function storyOf({ job, plan, copied, pivoted, aborting }: JournalSummary): string {
  const what = `job ${job} (${plan.request.operation}, ${plan.strategy.name}) was interrupted`;
  if (aborting) return `${what} while it was given up`;
  return pivoted === null
    ? `${what} after ${copied} bytes`
    : `${what} after its pivot: only marks are missing`;
}
