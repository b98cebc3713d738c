import { constants } from 'node:fs';
import { type LockRequest, lockedError, StorageError, type StorageLock } from '@downfold/storage';
import type { Calls } from './calls.ts';
import { calling } from './errno.ts';
import { openFacts } from './file-facts.ts';
import { conflictAt, lockBytesOf } from './lock-bytes.ts';
import { holdersOf } from './lock-holders.ts';
import { openFile } from './open-file.ts';

/** `f_type` of file systems that are another machine's, or whose locks may be nobody's business (statfs(2)). */
const REMOTE: ReadonlySet<number> = new Set([
  0x6969, // NFS
  0xff534d42, // CIFS
  0xfe534d42, // SMB 2 and 3
  0x517b, // SMB 1
  0x65735546, // FUSE
  0x01021997, // 9P
  0x00c36400, // Ceph
  0x5346414f, // AFS
  0x6b414653, // kAFS
  0x0bd00bd0, // Lustre
  0x47504653, // GPFS
  0x01161970, // GFS2
  0x7461636f, // OCFS2
]);

/** Locks a file through a descriptor of its own, so that nothing else that is opened or closed concerns the lock. */
export async function lockFile(
  path: string,
  request: LockRequest,
  calls: Calls,
): Promise<StorageLock> {
  const { locks } = calls;
  if (locks === null)
    throw new StorageError('STORAGE_UNSUPPORTED', `${path}: there are no locks on this system`, {
      file: path,
    });
  const opened = await openFile(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { identity } = await openFacts(path, opened.fd);
    let held: readonly number[] = [];
    const change = async (next: LockRequest): Promise<void> => {
      const { hold, free } = lockBytesOf(next);
      const byte = await calling(path, 'fcntl', () => locks.acquire(opened.fd, hold, free));
      const [from, to] = byte === null ? [held, hold] : [hold, held];
      const surplus = from.filter((one) => !to.includes(one));
      await calling(path, 'fcntl', () => locks.release(opened.fd, surplus));
      if (byte !== null) throw lockedError(path, conflictAt(byte), await holdersOf(identity, byte));
      held = hold;
    };
    await change(request);
    const type = await calling(path, 'statfs', () => calls.fileSystem(path));
    return {
      identity,
      remote: REMOTE.has(type >>> 0),
      change,
      [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
    };
  } catch (cause) {
    await opened[Symbol.asyncDispose]();
    throw cause;
  }
}
