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
    if (resume && journal.aborting) {
      await finishAbort(disk, path, journal, { jobs, log });
    } else if (resume) {
      const job = await jobs.resume(disk, path, journal);
      log.info(`${path}: goes on as job '${job.id}'`, { image: path, job: job.id });
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

/** What cannot be given up yet, as for want of an image, is reported, and the disk is served all the same. */
async function finishAbort(
  disk: Disk,
  path: string,
  journal: JournalSummary,
  { jobs, log }: Pick<Recovery, 'jobs' | 'log'>,
): Promise<void> {
  try {
    const { mixed } = await jobs.abandon(disk, path, journal);
    log.info(`${path}: giving the job up is finished`, { image: path, mixed: mixed.join() });
  } catch (cause) {
    if (!(cause instanceof DownfoldError)) throw cause;
    log.warn(`${path}: the job could not be given up: ${cause.message}; then: x-journal-abort`, {
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
