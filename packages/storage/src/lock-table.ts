import { StorageError } from './errors.ts';
import { conflictOf, type LockConflict, type LockRequest } from './lock.ts';

/** Locks of one process, for backends whose files no other process sees. */
export class LockTable {
  /** Locks that are held, by the file's identity. */
  readonly #held: Map<string, Set<LockRequest>> = new Map();

  /** Takes a lock and returns what lets it go. @throws StorageError `STORAGE_LOCKED`, naming `path` */
  take(inode: string, path: string, request: LockRequest): () => void {
    const held = this.#held.get(inode) ?? new Set();
    for (const other of held) {
      const conflict = conflictOf(request, other);
      if (conflict !== null) throw lockedError(path, conflict, null);
    }
    // the same request may be held twice
    const mine = { ...request };
    this.#held.set(inode, held.add(mine));
    return () => {
      held.delete(mine);
      if (held.size === 0) this.#held.delete(inode);
    };
  }
}

/** What a lock is refused with. `holders`: who has it, in words; null: not known. */
export function lockedError(
  path: string,
  { permission, because }: LockConflict,
  holders: string | null,
): StorageError {
  const who = holders ?? 'another process';
  const what =
    because === 'taken'
      ? `in use: ${who} has the permission '${permission}', which must be nobody's meanwhile`
      : `in use: ${who} does not share the permission '${permission}'`;
  return new StorageError('STORAGE_LOCKED', `${path}: is ${what}`, {
    file: path,
    permission,
    because,
    ...(holders === null ? {} : { holders }),
  });
}
