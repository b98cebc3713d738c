import { readFileSync } from 'node:fs';

/** Where Linux gives random UUIDs, each time another one. */
const UUID = '/proc/sys/kernel/random/uuid';

/** A random UUID, version 4: of the kernel where it has them, for Node's take all of its crypto, which takes 5 ms to load. */
export function newJobId(): string {
  try {
    return readFileSync(UUID, 'latin1').trim();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // another system, or one that shows no /proc
    if (code !== 'ENOENT' && code !== 'EACCES') throw cause;
    return process.getBuiltinModule('node:crypto').randomUUID();
  }
}
