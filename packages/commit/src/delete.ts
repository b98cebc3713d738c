import { posix } from 'node:path';
import { identityOf } from '@downfold/chain';
import type { Journal } from './journal.ts';
import type { Job } from './parts.ts';

/** P11: unlinks images of the chain that lost their meaning; only after DONE is durable, since a resumed job would need them before. `closed` lets go of the images. */
export async function deleteInvalid(
  job: Job,
  journal: Journal,
  closed: () => PromiseLike<void>,
): Promise<readonly string[]> {
  const { images, chainLength, invalidates } = job.plan;
  const deletes = images
    .slice(0, chainLength)
    .filter(({ node }) => node !== job.plan.request.top)
    .filter(({ node }) => invalidates.some((one) => one.node === node))
    .map(({ node }) => node);
  if (deletes.length === 0) return [];
  await journal.append({ type: 'DONE', deletes });
  await closed();
  return deleteFiles(job, journal);
}

/** Unlinks what DONE names, unless another file has its name by now. */
export async function deleteFiles(
  { parts, plan }: Job,
  journal: Journal,
): Promise<readonly string[]> {
  const done = journal.records.find((record) => record.type === 'DONE');
  const deleted: string[] = [];
  for (const { node, path, identity } of plan.images) {
    if (done?.deletes.includes(node) !== true) continue;
    const now = await identityOf(path, parts.backend);
    if (now !== null && now.inode !== identity.inode) continue;
    if (now !== null) await parts.backend.remove(path);
    await parts.backend.flushDirectory(posix.dirname(path), 'delete: image without meaning');
    deleted.push(path);
  }
  return deleted;
}
