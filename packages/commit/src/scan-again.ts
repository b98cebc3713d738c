import {
  type ChainEnvironment,
  dependentsOf,
  identityKey,
  imageOf,
  type LayerFacts,
  scanPool,
} from '@downfold/chain';
import { CommitError } from './errors.ts';
import type { CommitPlan } from './plan.ts';

/**
 * Looks again at the pool of a plan that was made a while ago.
 * @throws CommitError `COMMIT_CHANGED` that names an image which depends on what will be written, and which the plan does not know
 */
export async function assertNobodyNew(
  plan: CommitPlan,
  environment: ChainEnvironment,
): Promise<void> {
  const graph = await scanPool(plan.pools, environment, { recursive: false });
  const known = new Set(plan.images.map(({ identity }) => identityKey(identity)));
  const paths = new Set(plan.dependents.map(({ path }) => path));
  const chain = plan.images.slice(0, plan.chainLength);
  const at = (node: string | null): number => chain.findIndex((one) => one.node === node);
  for (const { identity } of chain.slice(
    Math.max(0, at(plan.request.base)),
    at(plan.request.top) + 1,
  )) {
    const image = imageOf(graph, identity);
    for (const one of image === undefined ? [] : dependentsOf(graph, image))
      if (!known.has(identityKey(one.identity)) && !paths.has(one.path)) throw stranger(one, chain);
  }
}

function stranger({ path }: LayerFacts, chain: readonly LayerFacts[]): CommitError {
  return new CommitError(
    'COMMIT_CHANGED',
    `${path}: depends on the chain of ${chain.at(-1)?.path} and was not there when the plan was made; plan again`,
    { image: path },
  );
}
