import type { LayerFacts, NodeId } from '@downfold/chain';
import type { StorageBackend } from '@downfold/storage';
import { type CommitPlan, factsIn } from './plan.ts';

/** Blocks of file systems are not smaller, and only whole ones are shared. */
const BLOCK_BYTES = 4096;

/**
 * Images of which whole clusters will share their blocks with the image that data goes to. `isOwnFile`: an image's file holds its data as it is, neither
 * elsewhere nor encrypted.
 */
export async function sharedWithTarget(
  plan: Pick<CommitPlan, 'request' | 'images' | 'reads' | 'bytesToCopy'>,
  backend: Pick<StorageBackend, 'sharesBlocks'>,
  isOwnFile: (node: NodeId) => boolean,
): Promise<readonly NodeId[]> {
  const { operation, base, top } = plan.request;
  if (plan.bytesToCopy === 0) return [];
  const target = factsIn(plan, operation === 'commit' ? base : top);
  if (!isOwnFile(target.node) || !hasWholeBlocks(target)) return [];
  const shared: NodeId[] = [];
  for (const node of plan.reads) {
    const source = factsIn(plan, node);
    if (source === target || !isOwnFile(node) || !hasWholeBlocks(source)) continue;
    if (await backend.sharesBlocks(source.path, target.path)) shared.push(node);
  }
  return shared;
}

function hasWholeBlocks({ geometry }: LayerFacts): boolean {
  return geometry.clusterSize === 1 || geometry.clusterSize >= BLOCK_BYTES;
}
