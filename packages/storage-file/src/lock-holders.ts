import fs from 'node:fs';
import { promisify } from 'node:util';
import type { FileIdentity } from '@downfold/storage';

const [readdir, readFile] = [promisify(fs.readdir), promisify(fs.readFile)];

/**
 * Who has a lock on a byte of a file, for people: `qemu-img (process 4711)`; null when that cannot be seen, as for processes of other users.
 * The system does not tell of which process an open file description is: all that may be looked at are gone through.
 */
export async function holdersOf(identity: FileIdentity, byte: number): Promise<string | null> {
  if (process.platform !== 'linux') return null;
  const found: string[] = [];
  for (const pid of await namesIn('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    for (const fd of await namesIn(`/proc/${pid}/fdinfo`)) {
      const info = await textOf(`/proc/${pid}/fdinfo/${fd}`);
      if (!info.split('\n').some((line) => isLockOn(line, identity, byte))) continue;
      const command = (await textOf(`/proc/${pid}/comm`)).trim();
      found.push(`${command || 'a process'} (process ${pid})`);
      break;
    }
  }
  return found.length === 0 ? null : found.join(', ');
}

/** A line such as `lock: 1: OFDLCK  ADVISORY  READ -1 fd:00:12345 100 101`. */
function isLockOn(line: string, { inode }: FileIdentity, byte: number): boolean {
  const match = /^lock:.*\s[0-9a-f]+:[0-9a-f]+:(\d+) (\d+) (\d+|EOF)\s*$/.exec(line);
  if (match === null || match[1] !== inode) return false;
  const end = match[3] === 'EOF' ? Number.POSITIVE_INFINITY : Number(match[3]);
  return Number(match[2]) <= byte && byte <= end;
}

/** Processes come and go, and those of others are closed to us: what cannot be seen is as if it were not there. */
async function namesIn(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch(() => []);
}

async function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
