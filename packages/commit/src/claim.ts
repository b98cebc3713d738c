import type { CommitPlan } from './plan.ts';

/**
 * What a job needs of the images of a disk that other jobs work beneath too; paths.
 * - `consumes`: their data is moved or replaced, or they leave the chain: nobody else may have anything to do with them.
 * - `relinks`: only their backing reference is rewritten, with the rest of a header that has one writer at a time.
 * - `stands`: is to stay in the chain and to show what it shows, whatever happens to what it reads through.
 */
export interface Claim {
  readonly consumes: readonly string[];
  readonly relinks: readonly string[];
  readonly stands: readonly string[];
}

/** The image that keeps two jobs from running beside each other; null: none does. */
export function conflictBetween(mine: Claim, theirs: Claim): string | null {
  const consumed = (one: Claim, other: Claim): string | undefined =>
    one.consumes.find((path) => allOf(other).includes(path));
  const twice = mine.relinks.find((path) => theirs.relinks.includes(path));
  return consumed(mine, theirs) ?? consumed(theirs, mine) ?? twice ?? null;
}

/** Paths of the images whose content a job writes; not of those that only get another reference. */
export function rewrittenBy(plan: CommitPlan): readonly string[] {
  const { images, writes } = plan;
  return images
    .filter(({ node }) => writes.includes(node) && !isRelinked(plan, node))
    .map(({ path }) => path);
}

function isRelinked({ relinks }: CommitPlan, node: string): boolean {
  return relinks.some(({ overlay }) => overlay === node);
}

/**
 * Whether one of two jobs, each of a chain of its own, changes an image that the other has to do with: its content, its meaning or its reference. Two
 * that only read the same images are in nobody's way.
 */
export function disturb(mine: CommitPlan, theirs: CommitPlan): boolean {
  const changes = ({ images, writes, invalidates, relinks }: CommitPlan): readonly string[] => {
    const nodes = new Set([
      ...writes,
      ...invalidates.map(({ node }) => node),
      ...relinks.map(({ overlay }) => overlay),
    ]);
    return images.filter(({ node }) => nodes.has(node)).map(({ path }) => path);
  };
  const meets = (changed: readonly string[], { images }: CommitPlan): boolean =>
    images.some(({ path }) => changed.includes(path));
  return meets(changes(mine), theirs) || meets(changes(theirs), mine);
}

/** What a plan's job needs. Layers below base count where the plan has them: then they are read too. */
export function claimOf(plan: CommitPlan): Claim {
  const { images, chainLength, request } = plan;
  const { operation, base, top } = request;
  const chain = images.slice(0, chainLength);
  const at = (node: string | null): number => chain.findIndex((one) => one.node === node);
  const from = operation === 'commit' ? 0 : at(base) + 1;
  const within = chain.slice(from, at(top) + 1);
  // and what is written beside the chain: whoever else reads through base gets what base loses
  const rewritten = rewrittenBy(plan);
  const beside = images.filter((one) => rewritten.includes(one.path) && !within.includes(one));
  const consumed = [...within, ...beside];
  const paths = (list: CommitPlan['images']): readonly string[] => list.map(({ path }) => path);
  return {
    consumes: paths(consumed),
    relinks: paths(images.filter((one) => !consumed.includes(one) && isRelinked(plan, one.node))),
    stands: operation === 'commit' ? [] : paths(chain.slice(at(base), from)),
  };
}

function allOf({ consumes, relinks, stands }: Claim): readonly string[] {
  return [...consumes, ...relinks, ...stands];
}
