import { posix } from 'node:path';
import { forgetMark, identityOf } from '@downfold/chain';
import { type StorageBackend, StorageError } from '@downfold/storage';
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

/** Unlinks what DONE names and their marks beside them, unless another file has the name by now. What may not be unlinked stays; it is marked. */
export async function deleteFiles({ parts, plan }: Job, journal: Journal): Promise<Deleted> {
  const { backend } = parts;
  const done = journal.records.find((record) => record.type === 'DONE');
  const deleted: string[] = [];
  const undeleted: { image: string; why: string }[] = [];
  for (const { node, path, identity } of plan.images) {
    if (done?.deletes.includes(node) !== true) continue;
    const now = await identityOf(path, backend);
    if (now !== null && now.inode !== identity.inode) continue;
    const why = now === null ? null : await removed(path, backend);
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
