import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Clock, createEngine, type Engine, type JournalOwner } from '@downfold/commit';
import { auto, copyDown, depthFirst, preserve, rebase, staged, stream } from '@downfold/strategies';
import { type Access, backend, formats, policyFor } from './environment.ts';

/** Where Linux keeps what changes with every boot. */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** The time of this machine. */
export const clock: Clock = {
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

/** What `auto` chooses from; of equals the first. */
const COMMITTING = [copyDown, depthFirst, staged, preserve] as const;

/** The engine of the command line, with everything named that it may use. */
export function engineFor(file: string, access: Access): Engine {
  return createEngine({
    backend,
    formats,
    strategies: [...COMMITTING, auto(COMMITTING), stream, rebase],
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
