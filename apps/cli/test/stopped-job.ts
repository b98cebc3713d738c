import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { type Bench, BIN, type Started, start } from './support.ts';

/** Name of the journal of a job on `active.qcow2`. */
export const JOURNAL = 'active.qcow2.downfold';

/** A chain in which 20 MiB go down to base: enough to be met at work at 8 MiB a second. All four allocation cases. */
export const LARGE = [
  { name: 'base.qcow2', size: '32M', io: ['write -P 1 0 8M'] },
  { name: 'mid.qcow2', size: '32M', backing: 'base.qcow2', io: ['write -P 2 4M 10M'] },
  { name: 'top.qcow2', size: '32M', backing: 'mid.qcow2', io: ['write -P 3 12M 12M'] },
  { name: 'active.qcow2', size: '32M', backing: 'top.qcow2', io: ['write -P 4 26M 64k'] },
] as const;

/** The middle of such a chain. */
export const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'] as const;

/** Starts `downfold ARGS`, slowly, and waits until it has copied something. */
export async function copying(work: Bench, ...args: readonly string[]): Promise<Started> {
  const job = start(work, ...args, '-r', '8M', '-p', '--output', 'json');
  await job.said(/"phase":"copy","done":[1-9]/);
  return job;
}

/** As `copying`, and then ends it; its journal is there. */
export async function stopped(
  work: Bench,
  signal: NodeJS.Signals,
  ...args: readonly string[]
): Promise<void> {
  const job = await copying(work, ...args);
  job.kill(signal);
  await job.ended;
  if (!existsSync(work.file(JOURNAL))) throw new Error('the job was over before it was stopped');
}

/** Whether strace is there, and may trace. */
export const haveStrace: boolean =
  spawnSync('strace', ['-f', 'true'], { stdio: 'ignore' }).status === 0;
if (!haveStrace) console.warn('NO strace: tests of failing system calls are skipped');

/** What ends a process that waits for ever, and all that strace would leave running. */
const AT_LAST = ['timeout', '--signal=KILL', '50'] as const;

/**
 * Runs `downfold ARGS` while a system call on one file fails, or ends the process: `inject` as strace takes it. One thread of the pool,
 * so that calls are counted in the order in which they are made.
 */
export function injected(
  work: Bench,
  file: string,
  inject: string,
  ...args: readonly string[]
): ReturnType<Bench['run']> {
  const trace = ['-f', '-qq', '-o', '/dev/null', '-E', 'UV_THREADPOOL_SIZE=1'];
  const which = ['-P', work.file(file), '-e', `inject=${inject}`];
  return work.run('strace', ...trace, ...which, ...AT_LAST, process.execPath, BIN, ...args);
}
