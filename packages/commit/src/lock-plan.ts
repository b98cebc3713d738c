import {
  type ChainEnvironment,
  type ImageLocks,
  type LockWanted,
  lockImages,
} from '@downfold/chain';
import { LOSER, type LockRequest, READER, WRITER } from '@downfold/storage';
import type { CommitPlan } from './plan.ts';

/**
 * Locks every image that a job reads, writes, or takes the meaning of, as QEMU's block-commit does: facts on crash safety, 4.1. To be held
 * until the job is over.
 * @throws StorageError `STORAGE_LOCKED` when one is in use
 */
export function lockPlan(plan: CommitPlan, environment: ChainEnvironment): Promise<ImageLocks> {
  const { images, chainLength, writes, reads, invalidates } = plan;
  const wanted: LockWanted[] = [];
  for (const [index, { node, path }] of images.entries()) {
    const written = writes.includes(node);
    const lost = invalidates.some((one) => one.node === node);
    if (index < chainLength || written || lost || reads.includes(node))
      wanted.push({ path, request: requestFor(written, lost) });
  }
  return lockImages(wanted, environment);
}

function requestFor(written: boolean, lost: boolean): LockRequest {
  return {
    takes: (written ? WRITER : READER).takes,
    forbids: (lost ? LOSER : READER).forbids,
  };
}
