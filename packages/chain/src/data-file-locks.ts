import type { LockRequest, StorageLock } from '@downfold/storage';
import { sharedDataFile } from './errors.ts';
import { lockImage } from './lock.ts';
import type { ChainEnvironment, SharedLocks } from './policy.ts';

/** The lock of one data file, and what all want of it who have it open. */
interface Shared {
  readonly image: string;
  /** Null: the policy wants no locks. */
  readonly lock: StorageLock | null;
  readonly wanted: Set<LockRequest>;
}

/**
 * Locks of external data files for a process that has images open more than once: for reading, and for writing beside that. An image has one lock on
 * its data file, as strong as all that was opened of it needs; with a lock for each opening they would exclude one another.
 */
export class DataFileLocks implements SharedLocks {
  readonly #held: Map<string, Shared> = new Map();
  /** One after the other: a lock is raised and lowered by what is wanted of it then. */
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @throws ChainError `CHAIN_SHARED_DATA` when it is another image's; StorageError `STORAGE_LOCKED`
   */
  hold(
    path: string,
    image: string,
    request: LockRequest,
    environment: Pick<ChainEnvironment, 'backend' | 'policy'>,
  ): Promise<AsyncDisposable> {
    return this.#inTurn(async () => {
      const before = this.#held.get(path);
      if (before !== undefined && before.image !== image) throw sharedDataFile(image, before.image);
      await before?.lock?.change(allOf([...before.wanted, request]));
      const shared = before ?? {
        image,
        lock: await lockImage(path, request, environment),
        wanted: new Set(),
      };
      // each holder's own, also where two want the same
      const own: LockRequest = { ...request };
      shared.wanted.add(own);
      this.#held.set(path, shared);
      return { [Symbol.asyncDispose]: () => this.#inTurn(() => this.#release(path, shared, own)) };
    });
  }

  async #release(path: string, { lock, wanted }: Shared, own: LockRequest): Promise<void> {
    if (!wanted.delete(own)) return;
    if (wanted.size > 0) return lock?.change(allOf([...wanted]));
    this.#held.delete(path);
    await lock?.[Symbol.asyncDispose]();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    // whoever comes next does not care how it ended
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/** What satisfies all of them. */
function allOf(requests: readonly LockRequest[]): LockRequest {
  return {
    takes: [...new Set(requests.flatMap(({ takes }) => takes))],
    forbids: [...new Set(requests.flatMap(({ forbids }) => forbids))],
  };
}
