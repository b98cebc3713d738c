import {
  type ChainEnvironment,
  type ChainLayer,
  type ImageLocks,
  type LockWanted,
  lockImages,
} from '@downfold/chain';
import { LOSER, type LockRequest, READER, WRITER } from '@downfold/storage';
import type { Borrowed } from './borrowed.ts';
import { isFoundation } from './foundation.ts';
import type { CommitPlan } from './plan.ts';

/**
 * Locks every image that a job reads, writes, or takes the meaning of, as QEMU's block-commit does: facts on crash safety, 4.1. To be held
 * until the job is over. Locks that a disk in use holds are raised, and lowered again at the end; of what left the disk they are let go.
 * @throws StorageError `STORAGE_LOCKED` when one is in use
 */
export async function lockPlan(
  plan: CommitPlan,
  environment: ChainEnvironment,
  borrowed: Borrowed | null,
): Promise<Pick<ImageLocks, 'release'> & AsyncDisposable> {
  const { images, chainLength, writes, reads, invalidates } = plan;
  const wanted: LockWanted[] = [];
  await using raised = new AsyncDisposableStack();
  for (const [index, facts] of images.entries()) {
    const { node, path, identity } = facts;
    const written = writes.includes(node);
    // what a pivot leaves behind is the disk until then: others may go on reading it
    const isDisk = borrowed?.isActive(identity) === true;
    const lost = !isDisk && invalidates.some((one) => one.node === node);
    if (index >= chainLength && !written && !lost && !reads.includes(node)) continue;
    const request = requestFor(written, lost);
    const lent = borrowed?.find(identity);
    if (lent === undefined) wanted.push({ path, request });
    // what the job only stands on is the disk's, and may be another job's to write
    else if (!isFoundation(plan, facts))
      raised.defer(await raise(lent, request, borrowed as Borrowed));
  }
  const own = raised.use(await lockImages(wanted, environment));
  const all = raised.move();
  return {
    release: (path) => own.release(path),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** Raises the lock of a layer of a disk in use; returns what undoes it. */
async function raise(
  { facts, image }: ChainLayer,
  request: LockRequest,
  borrowed: Borrowed,
): Promise<() => Promise<void>> {
  const { path } = facts;
  const { disk } = borrowed;
  const { identity } = image.file;
  const before = await disk.locks.change(path, request);
  return async () => {
    if (borrowed.find(identity) === undefined) return disk.locks.release(path);
    if (before !== null)
      await disk.locks.change(path, borrowed.isActive(identity) ? WRITER : before);
  };
}

function requestFor(written: boolean, lost: boolean): LockRequest {
  return {
    takes: (written ? WRITER : READER).takes,
    forbids: (lost ? LOSER : READER).forbids,
  };
}
