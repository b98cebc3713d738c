import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { JournalOwner } from '@downfold/commit';

/** Where Linux keeps what changes with every boot. */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** This process, as a journal names the owner of its job. */
export function thisProcess(): JournalOwner {
  const started = startOf(process.pid);
  const owner = { host: hostname(), bootId: bootId(), pid: process.pid };
  return started === null ? owner : { ...owner, started };
}

/** When a process started, in clock ticks since boot: field 22 of its `stat`. Null: there is none, or it cannot be seen. */
function startOf(pid: number): string | null {
  // the first two fields are no longer there
  return statOf(pid)?.[19] ?? null;
}

/** Whether a process has ended, and waits for its parent to notice: it holds nothing any more. */
function isZombie(pid: number): boolean {
  const state = statOf(pid)?.[0];
  return state === 'Z' || state === 'X';
}

/** The fields of a process's `stat` from its state on. Null: there is none, or it cannot be seen. */
function statOf(pid: number): readonly string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the second field, a name, may hold anything
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES') return null;
    throw cause;
  }
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
export function isAlive(owner: JournalOwner): boolean {
  if (owner.host !== hostname() || owner.bootId !== bootId()) return false;
  if (!isRunning(owner.pid) || isZombie(owner.pid)) return false;
  const now = startOf(owner.pid);
  return owner.started === undefined || now === null || now === owner.started;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}
