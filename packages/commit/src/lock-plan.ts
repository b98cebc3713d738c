import {
  type ChainEnvironment,
  type ChainLayer,
  type ImageLocks,
  identityKey,
  type LayerFacts,
  type LockWanted,
  lockImages,
  type NodeId,
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
  const inChain = new Set(images.slice(0, chainLength));
  for (const facts of topDown(plan)) {
    const { node, path, identity } = facts;
    const written = writes.includes(node);
    // what a pivot leaves behind is the disk until then: others may go on reading it
    const isDisk = borrowed?.isActive(identity) === true;
    const lost = !isDisk && invalidates.some((one) => one.node === node);
    if (!inChain.has(facts) && !written && !lost && !reads.includes(node)) continue;
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

/**
 * The images of a plan, each before what it reads through, as a chain is opened: of two who want the same, one to plan and one to run, whoever comes
 * first to the topmost has what is below it. Images of one height go by their identities, so that jobs of siblings have one order too.
 */
function topDown({ images, links }: CommitPlan): readonly LayerFacts[] {
  const heightOf = (node: NodeId): number => {
    let height = 0;
    // a plan from a file may link in a circle
    for (let at = links[node] ?? null; at !== null && height < images.length; height++)
      at = links[at] ?? null;
    return height;
  };
  const ranked = images.map((facts) => ({
    facts,
    height: heightOf(facts.node),
    key: identityKey(facts.identity),
  }));
  return ranked
    .sort((a, b) => b.height - a.height || (a.key < b.key ? -1 : 1))
    .map(({ facts }) => facts);
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
