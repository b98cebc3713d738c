import { posix } from 'node:path';
import {
  type ChainEnvironment,
  forgetMark,
  identityOf,
  openLayer,
  readMark,
} from '@downfold/chain';
import { type StorageBackend, StorageError } from '@downfold/storage';
import { DownfoldError } from '@downfold/units';
import { storageErrorIn } from './errors.ts';
import type { Journal } from './journal.ts';
import type { CommitResult, Job } from './parts.ts';

/** What became of the images that were to be deleted. */
export type Deleted = Pick<CommitResult, 'deleted' | 'undeleted'>;

export const NOT_DELETED: Deleted = { deleted: [], undeleted: [] };

/** P11: unlinks images of the chain that lost their meaning; only after DONE is durable, since a resumed job would need them before. `closed` lets go of the images. */
export async function deleteInvalid(
  job: Job,
  journal: Journal,
  closed: () => PromiseLike<void>,
): Promise<Deleted> {
  const { images, chainLength, invalidates } = job.plan;
  const deletes = images
    .slice(0, chainLength)
    .filter(({ node }) => node !== job.plan.request.top)
    .filter(({ node }) => invalidates.some((one) => one.node === node))
    .map(({ node }) => node);
  if (deletes.length === 0) return NOT_DELETED;
  await journal.append({ type: 'DONE', deletes });
  await closed();
  return deleteFiles(job, journal);
}

/**
 * Unlinks what DONE names and their marks beside them, unless another file has the name by now, or it does not bear the job's mark: what a journal
 * says alone deletes nothing. What may not be unlinked stays; it is marked.
 */
export async function deleteFiles(
  { parts, plan, environment }: Job,
  journal: Journal,
): Promise<Deleted> {
  const { backend } = parts;
  const done = journal.records.find((record) => record.type === 'DONE');
  const deleted: string[] = [];
  const undeleted: { image: string; why: string }[] = [];
  for (const facts of plan.images) {
    const { node, path, identity } = facts;
    if (done?.deletes.includes(node) !== true) continue;
    const now = await identityOf(path, backend);
    if (now !== null && now.inode !== identity.inode) continue;
    const why =
      now === null
        ? null
        : ((await notMarked({ ...facts, identity: now }, journal, environment)) ??
          (await removed(path, backend)));
    if (why !== null) {
      undeleted.push({ image: path, why });
      continue;
    }
    await forgetMark(path, identity, backend);
    await backend.flushDirectory(posix.dirname(path), 'delete: image without meaning');
    deleted.push(path);
  }
  return { deleted, undeleted };
}

/** Why an image is not one that this job marked; null: it is. */
async function notMarked(
  facts: Parameters<typeof openLayer>[0],
  { intent }: Journal,
  environment: ChainEnvironment,
): Promise<string | null> {
  const policy = { ...environment.policy, allowMarked: true, allowLocked: true };
  try {
    await using image = (await openLayer(facts, 'read', { ...environment, policy })).image;
    const mark = await readMark(image, environment.backend);
    return mark?.job === intent.job ? null : `${facts.path}: does not bear the mark of this job`;
  } catch (cause) {
    // what may pass stops the job, which is gone on with
    const mayPass = storageErrorIn(cause) !== null && !isDenied(cause);
    if (!(cause instanceof DownfoldError) || mayPass) throw cause;
    return cause.message;
  }
}

function isDenied(cause: unknown): boolean {
  return storageErrorIn(cause)?.code === 'STORAGE_ACCESS';
}

/** Why a file may not be unlinked, whoever tries again; null: it was. */
async function removed(path: string, backend: StorageBackend): Promise<string | null> {
  try {
    await backend.remove(path);
    return null;
  } catch (cause) {
    const isFinal =
      cause instanceof StorageError &&
      (cause.code === 'STORAGE_ACCESS' || cause.code === 'STORAGE_UNSUPPORTED');
    if (!isFinal) throw cause;
    return cause.message;
  }
}
