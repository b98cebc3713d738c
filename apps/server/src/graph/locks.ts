import { type ChainEnvironment, type ImageLocks, lockImage } from '@downfold/chain';
import type { LockRequest, StorageLock } from '@downfold/storage';

/** One lock that is held. */
interface Held {
  readonly lock: StorageLock;
  request: LockRequest;
}

/** The locks on the layers of a disk, by path. They come and go with its layers. */
export class DiskLocks implements ImageLocks {
  readonly #environment: ChainEnvironment;
  readonly #held: Map<string, Held> = new Map();

  constructor(environment: ChainEnvironment) {
    this.#environment = environment;
  }

  /** Locks one more image. @throws StorageError `STORAGE_LOCKED`; ChainError `CHAIN_REMOTE_LOCK` */
  async add(path: string, request: LockRequest): Promise<void> {
    const lock = await lockImage(path, request, this.#environment);
    if (lock !== null) this.#held.set(path, { lock, request });
  }

  async change(path: string, request: LockRequest): Promise<LockRequest | null> {
    const held = this.#held.get(path);
    if (held === undefined) return null;
    const before = held.request;
    await held.lock.change(request);
    held.request = request;
    return before;
  }

  async release(path: string): Promise<void> {
    const held = this.#held.get(path);
    this.#held.delete(path);
    await held?.lock[Symbol.asyncDispose]();
  }

  /** Takes over the locks of another disk, all or those of some paths. */
  take(from: DiskLocks, paths: readonly string[] = [...from.#held.keys()]): void {
    for (const path of paths) {
      const held = from.#held.get(path);
      if (held === undefined) continue;
      from.#held.delete(path);
      this.#held.set(path, held);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of [...this.#held.keys()]) await this.release(path);
  }
}
