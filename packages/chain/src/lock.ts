import { isUrl, type LockRequest, type StorageLock } from '@downfold/storage';
import { ChainError } from './errors.ts';
import { identityOf } from './identity.ts';
import type { ChainEnvironment } from './policy.ts';

/** An image to lock, by the path that it has now. */
export interface LockWanted {
  readonly path: string;
  readonly request: LockRequest;
}

/** Locks of several images. */
export interface ImageLocks extends AsyncDisposable {
  /** Lets one go. */
  release(path: string): Promise<void>;
  /**
   * Raises or lowers one without letting it go. Resolves with what it was; null: it is not held, because the policy wants no locks or the image is
   * none of these. @throws StorageError `STORAGE_LOCKED`; it is what it was then
   */
  change(path: string, request: LockRequest): Promise<LockRequest | null>;
}

/** One that is held, and what it is. */
interface Held {
  readonly lock: StorageLock;
  request: LockRequest;
}

type Environment = Pick<ChainEnvironment, 'backend' | 'policy'>;

/**
 * Locks all of these images or none, in the order given, as the policy says. One that is gone is left out: nobody uses it.
 * @throws StorageError `STORAGE_LOCKED` when an image is in use; ChainError `CHAIN_REMOTE_LOCK`
 */
export async function lockImages(
  wanted: readonly LockWanted[],
  environment: Environment,
): Promise<ImageLocks> {
  const held = new Map<string, Held>();
  const locks: ImageLocks = {
    release: async (path) => {
      const one = held.get(path);
      held.delete(path);
      await one?.lock[Symbol.asyncDispose]();
    },
    change: async (path, request) => {
      const one = held.get(path);
      if (one === undefined) return null;
      const before = one.request;
      await one.lock.change(request);
      one.request = request;
      return before;
    },
    [Symbol.asyncDispose]: async () => {
      for (const path of held.keys()) await locks.release(path);
    },
  };
  try {
    for (const { path, request } of wanted) {
      if (environment.policy.locks === 'none') break;
      if ((await identityOf(path, environment.backend)) === null) continue;
      const lock = await lockImage(path, request, environment);
      if (lock !== null) held.set(path, { lock, request });
    }
    return locks;
  } catch (cause) {
    await locks[Symbol.asyncDispose]();
    throw cause;
  }
}

/** Locks one image. Null: the policy wants no locks, or it lies behind a server, where there are none: nobody hears of it there. */
export async function lockImage(
  path: string,
  request: LockRequest,
  { backend, policy }: Environment,
): Promise<StorageLock | null> {
  if (policy.locks === 'none' || isUrl(path)) return null;
  const lock = await backend.lock(path, request);
  if (!lock.remote || policy.locks === 'everywhere') return lock;
  await lock[Symbol.asyncDispose]();
  throw new ChainError(
    'CHAIN_REMOTE_LOCK',
    `${path}: lies on a network or FUSE file system, where locks may exclude nobody; make sure that nobody else uses it, and say whether to lock all the same: --lock ofd, or --lock none`,
    { image: path },
  );
}
