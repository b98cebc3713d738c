import { type Job, JobError, type Jobs } from '@downfold/job';
import {
  bool,
  type Command,
  type Commands,
  command,
  int,
  list,
  optional,
  QmpError,
  str,
  struct,
} from '@downfold/qmp';
import { blockJobInfo, jobInfo } from '../schema/jobs.ts';

/** What may be asked of a job by its id alone, by either family of commands. */
const VERBS = {
  pause: 'Pauses a job at its next piece.',
  resume: 'Lets a paused job go on.',
  complete: 'Ends a job that is ready as it was meant: base takes the place of the active layer.',
  finalize: 'Lets a pending job switch what others see.',
  dismiss: 'Forgets a job that has concluded.',
} as const;

/** QEMU has deprecated all of them but one for those that begin with `job-`. */
const CURRENT: ReadonlySet<string> = new Set(['dismiss']);

/** `job-*`, `block-job-*`, and what tells of jobs. */
export function jobCommands(jobs: Jobs): Commands {
  const commands: Record<string, Command> = {};
  for (const [verb, about] of Object.entries(VERBS) as [keyof typeof VERBS, string][]) {
    commands[`job-${verb}`] = command({
      about,
      arguments: struct({ id: str }),
      run: ({ id }) => doTo(jobs.find(id), verb),
    }) as Command;
    commands[`block-job-${verb}`] = command({
      about,
      arguments: struct(verb === 'finalize' || verb === 'dismiss' ? { id: str } : { device: str }),
      features: CURRENT.has(verb) ? [] : ['deprecated'],
      run: (args: { readonly id?: string; readonly device?: string }) =>
        doTo(blockJob(jobs, args.id ?? args.device ?? ''), verb),
    }) as Command;
  }
  return { ...commands, ...cancelling(jobs), ...telling(jobs) };
}

/** Does it. As in QEMU a job that is finalized has concluded when the answer comes: who asked may dismiss it next. */
async function doTo(job: Job, verb: keyof typeof VERBS): Promise<void> {
  job[verb]();
  if (verb === 'finalize') await job.concluded;
}

/** Cancels it. As in QEMU one that is pending has concluded when the answer comes. */
async function cancel(job: Job, how: { readonly force: boolean }): Promise<void> {
  const isPending = job.state === 'pending';
  job.cancel(how);
  if (isPending) await job.concluded;
}

function cancelling(jobs: Jobs): Commands {
  return {
    'job-cancel': command({
      about: 'Stops a job at once, and gives it up: links stay as they were.',
      arguments: struct({ id: str }),
      run: ({ id }) => cancel(jobs.find(id), { force: true }),
    }) as Command,
    'block-job-cancel': command({
      about:
        'Ends a job that is ready with its data in place and the links as they were; any other job, or with `force`, as `job-cancel`. One that is paused only with `force`.',
      arguments: struct({ device: str, force: optional(bool) }),
      run: ({ device, force = false }) => cancel(blockJob(jobs, device), { force }),
    }) as Command,
    'block-job-set-speed': command({
      about: 'Limits how fast a job copies.',
      arguments: struct({ device: str, speed: int }),
      run: ({ device, speed }) => blockJob(jobs, device).setSpeed(speed),
    }) as Command,
  };
}

function telling(jobs: Jobs): Commands {
  return {
    'query-jobs': command({
      about: 'Tells of all jobs.',
      returns: list(jobInfo),
      run: () => [...jobs].map((job) => job.info()),
    }) as Command,
    'query-block-jobs': command({
      about: 'Tells of all jobs, with what block jobs have.',
      returns: list(blockJobInfo),
      run: () => [...jobs].map((job) => job.blockInfo()),
    }) as Command,
  };
}

/** @throws QmpError `DeviceNotActive` */
function blockJob(jobs: Jobs, device: string): Job {
  try {
    return jobs.find(device);
  } catch (cause) {
    if (cause instanceof JobError && cause.code === 'JOB_NOT_FOUND')
      throw new QmpError('DeviceNotActive', `Block job '${device}' not found`, cause);
    throw cause;
  }
}
