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

/** What a plan's job needs. Layers below base count where the plan has them: then they are read too. */
export function claimOf({ images, chainLength, request, relinks }: CommitPlan): Claim {
  const { operation, base, top } = request;
  const chain = images.slice(0, chainLength);
  const at = (node: string | null): number => chain.findIndex((one) => one.node === node);
  const from = operation === 'commit' ? 0 : at(base) + 1;
  const consumed = chain.slice(from, at(top) + 1);
  const isRelinked = (node: string): boolean => relinks.some(({ overlay }) => overlay === node);
  const paths = (list: CommitPlan['images']): readonly string[] => list.map(({ path }) => path);
  return {
    consumes: paths(consumed),
    relinks: paths(images.filter((one) => !consumed.includes(one) && isRelinked(one.node))),
    stands: operation === 'commit' ? [] : paths(chain.slice(at(base), from)),
  };
}

function allOf({ consumes, relinks, stands }: Claim): readonly string[] {
  return [...consumes, ...relinks, ...stands];
}
