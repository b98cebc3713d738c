import type { NodeId } from '@downfold/chain';
import { CommitError } from './errors.ts';
import type { Layers } from './layers.ts';
import { type CommitPlan, pathOf } from './plan.ts';

/**
 * Internal snapshots read through their image's backing file, as their image does, and nothing is copied for them: where what lies below an image that
 * stays becomes another, they would show something else. @throws CommitError `COMMIT_UNSUPPORTED`
 */
export async function assertNoSnapshots(
  plan: CommitPlan,
  layers: Pick<Layers, 'get'>,
): Promise<void> {
  for (const node of changedBelow(plan)) {
    const { image } = layers.get(node);
    // nothing lies below it, and nothing will
    if (image.backing === null && plan.request.base === null) continue;
    const { snapshots } = await image.describe();
    if (snapshots.length === 0) continue;
    const path = pathOf(plan, node);
    const names = snapshots.map(({ name }) => `'${name}'`).join(', ');
    throw new CommitError(
      'COMMIT_UNSUPPORTED',
      `${path}: its internal snapshots (${names}) would show something else, for they read through what lies below it too; copy them out (downfold convert -l SNAPSHOT), and delete them (downfold snapshot -d) first`,
      { image: path },
    );
  }
}

/** Images that keep their meaning, and get something else below them than what they stood on. */
function changedBelow(plan: CommitPlan): NodeId[] {
  const { request, chainLength, images, writes, preserves, invalidates, relinks } = plan;
  const { operation, top, unsafe } = request;
  // who gives a reference another name vouches for what is shown; and one that a pivot leaves behind means nothing any more
  if (unsafe || invalidates.some(({ node }) => node === top)) return [];
  if (operation !== 'commit') return [top];
  const inChain = images.slice(0, chainLength).map(({ node }) => node);
  // overlays of top stand on what shows the same
  const relinked = relinks.map(({ overlay }) => overlay);
  const isPushed = (node: NodeId): boolean =>
    preserves.includes(node) && !inChain.includes(node) && !relinked.includes(node);
  return [top, ...writes.filter(isPushed)];
}
