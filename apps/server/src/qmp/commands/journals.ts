import {
  bool,
  type Command,
  type Commands,
  command,
  int,
  list,
  str,
  struct,
  type Type,
} from '@downfold/qmp';
import type { Interrupted } from '../../jobs/journals.ts';
import type { ServerParts } from '../context.ts';
import { type JournalInfo, journalAbort, journalInfo, journalResume } from '../schema/jobs.ts';
import { startOptions } from './start.ts';

/** What giving a job up came to. */
interface Abandoned {
  readonly undone: boolean;
  readonly mixed: readonly string[];
  readonly gone: readonly string[];
  readonly 'clusters-freed': number;
}

const abandoned: Type<Abandoned> = struct(
  { undone: bool, mixed: list(str), gone: list(str), 'clusters-freed': int },
  'XJournalAbandoned',
);

/** `x-journal-*`: what a crash, or the end of a server, left of jobs. */
export function journalCommands({ graph, jobs, journals }: ServerParts): Commands {
  const told = ({ path, journal }: Interrupted): JournalInfo => {
    const name = graph.nameOf(path);
    const { job, plan, copied, pivoted } = journal;
    return {
      image: path,
      ...(name === path ? {} : { 'node-name': name }),
      job,
      operation: plan.request.operation,
      strategy: plan.strategy.name,
      copied,
      ...(pivoted === null ? {} : { pivoted }),
    };
  };
  return {
    'x-query-journals': command({
      about: 'Tells of jobs that were interrupted and wait to be gone on with, or given up.',
      returns: list(journalInfo),
      run: async () => (await journals.find()).map(told),
    }) as Command,
    'x-journal-resume': command({
      about: 'Goes on with an interrupted job from its last checkpoint, as a job.',
      arguments: journalResume,
      run: async ({ image, ...args }) => {
        const { disk, path, journal } = await journals.of(image);
        const id = args['job-id'];
        const options = { ...startOptions(args), ...(id === undefined ? {} : { id }) };
        await jobs.resume(disk, path, journal, options);
        // it runs before its client hears that it was started
        await Promise.resolve();
      },
    }) as Command,
    'x-journal-abort': command({
      about:
        'Gives an interrupted job up: links stay as they were; images that hold a part of it are marked. Refused once all data is in place.',
      arguments: journalAbort,
      returns: abandoned,
      run: async ({ image }) => {
        const { disk, path, journal } = await journals.of(image);
        const { undone, mixed, gone, clustersFreed } = await jobs.abandon(disk, path, journal);
        return { undone, mixed, gone, 'clusters-freed': clustersFreed };
      },
    }) as Command,
  };
}
