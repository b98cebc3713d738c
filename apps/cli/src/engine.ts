import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Clock,
  createEngine,
  type Engine,
  type JournalOwner,
  type RunOptions,
  Throttle,
} from '@downfold/commit';
import { copyDown } from '@downfold/strategies';
import { type Access, backend, formats, policyFor } from './environment.ts';
import { parseBytes } from './output/bytes.ts';
import { type ProgressDisplay, progressDisplay } from './output/progress.ts';

/** Where Linux keeps what changes with every boot. */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

const clock: Clock = {
  now: () => performance.now(),
  sleep: async (milliseconds, signal) => {
    await sleep(milliseconds, undefined, signal === undefined ? {} : { signal }).catch(
      (cause: unknown) => {
        signal?.throwIfAborted();
        throw cause;
      },
    );
  },
  date: () => new Date().toISOString(),
};

/** The engine of the command line, with everything named that it may use. */
export function engineFor(file: string, access: Access): Engine {
  return createEngine({
    backend,
    formats,
    strategies: [copyDown],
    policy: policyFor([file], access),
    owner: { host: hostname(), bootId: bootId(), pid: process.pid },
    isAlive,
    newJobId: randomUUID,
    clock,
  });
}

/** Null-free: systems without a boot id get a name that is equal on every boot, and a process id then decides alone. */
function bootId(): string {
  try {
    return readFileSync(BOOT_ID, 'latin1').trim();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return `no boot id on ${hostname()}`;
    throw cause;
  }
}

/** Whether the process runs on this boot of this machine. Of others nothing can be known: they count as gone. */
function isAlive(owner: JournalOwner): boolean {
  if (owner.host !== hostname() || owner.bootId !== bootId()) return false;
  try {
    process.kill(owner.pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Options that `commit` and `resume` share. */
export interface JobOptions extends Access {
  readonly output: string;
  readonly progress?: boolean;
  readonly quiet?: boolean;
  readonly verify?: boolean;
  readonly rate?: string;
}

/** How a job is to run, and what shows its progress. */
export function runOptions(
  options: JobOptions,
  signal: AbortSignal,
): { readonly run: RunOptions; readonly display: ProgressDisplay } {
  const display = progressDisplay({
    progress: options.progress,
    quiet: options.quiet,
    json: options.output === 'json',
  });
  const rate = options.rate === undefined ? 0 : parseBytes(options.rate, 'rate');
  const run = {
    signal,
    onProgress: display.show,
    throttle: new Throttle(rate, clock),
    verify: options.verify ?? false,
  };
  return { run, display };
}
