import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  identityKey,
  identityOf,
  type OpenChain,
} from '@downfold/chain';
import { NO_RANGE } from './borrowed.ts';
import { CommitError, type CommitErrorCode } from './errors.ts';
import type { LiveDisk } from './live.ts';
import type { CommitPlan } from './plan.ts';
import type { Ends } from './plan-pool.ts';
import type { CommitStrategy } from './strategy.ts';

/** The layers of a disk in use up to the request's image, with what is known of them now. They stay the disk's. */
export async function chainInUse(
  live: LiveDisk,
  file: string,
  { operation }: CommitStrategy,
  { backend }: ChainEnvironment,
): Promise<OpenChain> {
  const path = await backend.realPath(file);
  const identity = await identityOf(path, backend);
  const at = live.layers.findIndex(
    ({ image }) => identity !== null && identityKey(image.file.identity) === identityKey(identity),
  );
  const refuse = (code: CommitErrorCode, why: string): never => {
    throw new CommitError(code, `${path}: ${why}`, { image: path });
  };
  if (at < 0) refuse('COMMIT_BAD_REQUEST', 'is no layer of the disk in use');
  if (operation === 'rebase') refuse('COMMIT_UNSUPPORTED', 'cannot be rebased while it is in use');
  const layers: ChainLayer[] = [];
  // another job may put other open files in their places, and close these
  await live.holding(NO_RANGE, 'changes', async (now) => {
    for (const [index, { facts, image }] of now.slice(0, at + 1).entries())
      layers.push({ facts: await factsOf(`l${index}`, facts.path, image, backend), image });
  });
  return { layers, [Symbol.asyncDispose]: async () => {} };
}

/**
 * The chain without the layers below base, which the job only reads through, if at all: another job may work on them meanwhile. A strategy that keeps
 * what siblings read gives them what all layers show, and needs the whole.
 */
export function aboveFoundation(
  chain: OpenChain,
  { base, top }: Ends,
  { operation, keepsSiblings }: CommitStrategy,
): { readonly chain: OpenChain; readonly ends: Ends } {
  const below = operation === 'commit' && keepsSiblings ? 0 : Math.max(0, base);
  return {
    chain: { ...chain, layers: chain.layers.slice(below) },
    ends: { base: base - below, top: top - below },
  };
}

/** A plan for a disk in use: what is streamed onto stays, and shows what it shows; its own reference may be rewritten by another job. */
export function withoutFoundation(plan: CommitPlan): CommitPlan {
  const { operation, base } = plan.request;
  if (operation !== 'stream') return plan;
  return { ...plan, reads: plan.reads.filter((node) => node !== base) };
}

/** What the guest writes to goes to base by a pivot, and nothing else does; what is committed otherwise has an overlay, beside which the journal lies. */
export function assertPlace(
  strategy: CommitStrategy,
  chain: OpenChain,
  { top }: Ends,
  live: LiveDisk | undefined,
): void {
  if (strategy.operation !== 'commit') return;
  const isActive = live !== undefined && top === live.layers.length - 1;
  if (live !== undefined && !isActive && top === chain.layers.length - 1)
    throw new CommitError(
      'COMMIT_BAD_REQUEST',
      `${chain.layers[top]?.facts.path}: is not the active layer of the disk in use, and named without an overlay`,
    );
  if ((strategy.pivots === true) === isActive) return;
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    isActive
      ? `strategy '${strategy.name}' cannot commit the active layer of a disk in use: it is written to all the time; one that pivots can`
      : `strategy '${strategy.name}' commits the active layer of a disk in use, and nothing else`,
    { strategy: strategy.name },
  );
}
