import type { StorageLock } from './backend.ts';
import { StorageError } from './errors.ts';
import { conflictOf, type LockConflict, type LockRequest, type Permission } from './lock.ts';
import type { FileIdentity } from './storage.ts';

/** Locks of one process, for backends whose files no other process sees. */
export class LockTable {
  /** Locks that are held, by the file's identity. */
  readonly #held: Map<string, Set<LockRequest>> = new Map();

  /** Takes a lock, as a backend hands it out. @throws StorageError `STORAGE_LOCKED`, naming `path` */
  lock(
    path: string,
    identity: FileIdentity,
    request: LockRequest,
    { remote }: Pick<StorageLock, 'remote'>,
  ): StorageLock {
    const held = this.take(`${identity.device}:${identity.inode}`, path, request);
    return {
      identity,
      remote,
      change: async (next) => held.change(next),
      [Symbol.asyncDispose]: async () => held.release(),
    };
  }

  /** Takes a lock. @throws StorageError `STORAGE_LOCKED`, naming `path` */
  take(inode: string, path: string, request: LockRequest): TableLock {
    const held = this.#held.get(inode) ?? new Set();
    assertFree(held, path, request);
    // the same request may be held twice
    let mine = { ...request };
    this.#held.set(inode, held.add(mine));
    return {
      change: (next) => {
        assertFree(
          [...held].filter((one) => one !== mine),
          path,
          next,
        );
        // one that was let go stays so
        if (!held.delete(mine)) return;
        mine = { ...next };
        held.add(mine);
      },
      release: () => {
        // let go twice, it must not take the next holder's lock with it
        if (held.delete(mine) && held.size === 0) this.#held.delete(inode);
      },
    };
  }
}

/** A lock in a table. */
export interface TableLock {
  /** Becomes another one. @throws StorageError `STORAGE_LOCKED`; it is what it was then */
  change(request: LockRequest): void;
  release(): void;
}

function assertFree(held: Iterable<LockRequest>, path: string, request: LockRequest): void {
  for (const other of held) {
    const conflict = conflictOf(request, other);
    if (conflict !== null) throw lockedError(path, conflict, null);
  }
}

const DOING: Readonly<Record<Permission, string>> = {
  'consistent-read': 'read it',
  write: 'write to it',
  'write-unchanged': 'rewrite it',
  resize: 'change its length',
};

/** What a lock is refused with. `holders`: who has it, in words; null: not known. */
export function lockedError(
  path: string,
  { permission, because }: LockConflict,
  holders: string | null,
): StorageError {
  const who = holders ?? 'another process';
  const does = because === 'taken' ? 'may' : 'lets nobody else';
  return new StorageError(
    'STORAGE_LOCKED',
    `${path}: is in use: ${who} ${does} ${DOING[permission]}`,
    {
      file: path,
      permission,
      because,
      ...(holders === null ? {} : { holders }),
    },
  );
}
