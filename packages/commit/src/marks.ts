import { type NodeId, readMark, writeMark } from '@downfold/chain';
import type { ImageMark } from '@downfold/image';
import type { StorageBackend } from '@downfold/storage';
import type { Layers } from './layers.ts';
import type { CommitPlan } from './plan.ts';

/** Base holds all of it now: if an abandoned job once marked it as a mixture, it is none any more. */
export async function clearMixed(
  plan: CommitPlan,
  layers: Layers,
  backend: StorageBackend,
): Promise<void> {
  const { operation, base } = plan.request;
  if (operation !== 'commit' || base === null) return;
  const facts = plan.images.find(({ node }) => node === base);
  if (facts?.mark?.state === 'mixed') await writeMark(layers.get(base).image, null, backend);
}

/** What a job that was given up leaves behind as markers: images whose content is of no point in time. Resolves with all of them. */
export async function markAbandoned(
  nodes: readonly NodeId[],
  layers: Layers,
  backend: StorageBackend,
  mark: Omit<ImageMark, 'state'>,
): Promise<readonly NodeId[]> {
  const marked: NodeId[] = [];
  for (const node of nodes) {
    const { image } = await layers.reopen(node);
    // one that the job has retired for good stays so; those above a mixed one in a chain of the time still read right through it
    const before = await readMark(image, backend);
    const state = before?.job === mark.job ? before.state : 'mixed';
    await writeMark(image, { ...mark, state }, backend);
    marked.push(node);
  }
  return marked;
}
