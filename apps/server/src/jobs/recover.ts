import type { JournalSummary } from '@downfold/commit';
import type { Disk } from '../graph/disk.ts';
import type { Graph } from '../graph/graph.ts';
import { journalBeside } from '../graph/superseded.ts';
import type { Log } from '../log.ts';
import type { BlockJobs } from './block-jobs.ts';

/** An image that was named and is not the disk any more, and its disk: a journal may lie beside it. */
export interface Named {
  readonly path: string;
  readonly disk: Disk;
}

/** What interrupted jobs are looked for with. */
export interface Recovery {
  readonly graph: Graph;
  readonly jobs: BlockJobs;
  readonly named: Named | null;
  /** Goes on with them; else they are only reported. */
  readonly resume: boolean;
  readonly log: Log;
}

/** Looks for journals beside every layer of every disk, and reports them or goes on with their jobs. Resolves with how many there are. */
export async function recover({ graph, jobs, named, resume, log }: Recovery): Promise<number> {
  let found = 0;
  for (const disk of graph.disks) {
    const paths = disk.layers.map(({ facts }) => facts.path);
    if (named?.disk === disk) paths.unshift(named.path);
    for (const path of paths) {
      const journal = await journalBeside(path, disk.environment);
      if (journal === null) continue;
      found += 1;
      log.warn(`${path}: ${storyOf(journal)}`, { image: path });
      if (resume) await goOn(disk, path, journal, jobs, log);
      else
        log.warn(`${path}: serving it all the same; go on with it: downfoldd --resume`, {
          image: path,
        });
    }
  }
  return found;
}

async function goOn(
  disk: Disk,
  path: string,
  journal: JournalSummary,
  jobs: BlockJobs,
  log: Log,
): Promise<void> {
  const job = await jobs.resume(disk, path, journal);
  log.info(`${path}: goes on as job '${job.id}'`, { image: path, job: job.id });
}

function storyOf({ job, plan, copied, pivoted }: JournalSummary): string {
  const what = `job ${job} (${plan.request.operation}, ${plan.strategy.name}) was interrupted`;
  return pivoted === null
    ? `${what} after ${copied} bytes`
    : `${what} after its pivot: only marks are missing`;
}
