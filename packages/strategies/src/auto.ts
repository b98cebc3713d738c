import { formatBytes } from '@downfold/chain';
import {
  type Candidate,
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitRequest,
  type CommitStrategy,
} from '@downfold/commit';

/** A candidate that can do it. */
interface Possible {
  readonly strategy: CommitStrategy;
  readonly plan: CommitPlan;
}

/**
 * Plans with each of `strategies` and takes the best: the fewest images that lose their meaning outside the chain, then the fewest bytes
 * written, then the least temporary space, then the fewest intermediates lost at once; of equals the first. The plan it returns is
 * the chosen strategy's own, and says why.
 */
export function auto(strategies: readonly CommitStrategy[]): CommitStrategy {
  return {
    name: 'auto',
    version: 1,
    operation: 'commit',
    keepsSiblings: true,
    summary: 'plan with every strategy and take the cheapest that harms nobody',
    plan: (request, view, options) => choose(strategies, request, view, options),
    steps: () => {
      throw new CommitError('COMMIT_BAD_REQUEST', 'a plan of auto names the strategy it chose');
    },
  };
}

async function choose(
  strategies: readonly CommitStrategy[],
  request: CommitRequest,
  view: ChainView,
  options?: Parameters<CommitStrategy['plan']>[2],
): Promise<CommitPlan> {
  const possible: Possible[] = [];
  const candidates: Candidate[] = [];
  for (const strategy of strategies) {
    const refused = refusal(strategy, request, view);
    const plan = refused === null ? await tryPlan(strategy, request, view, options) : refused;
    if (typeof plan !== 'string') possible.push({ strategy, plan });
    candidates.push(candidateOf(strategy, plan));
  }
  possible.sort((a, b) => compare(a.plan, b.plan));
  const [best, ...others] = possible;
  if (best === undefined)
    throw new CommitError(
      'COMMIT_UNSUPPORTED',
      `no strategy can do this: ${candidates.map((one) => `${one.strategy} (${one.refused})`).join(', ')}`,
    );
  return { ...best.plan, chosen: { why: whyOf(best, others), candidates } };
}

/** Why a strategy is not even asked; null: it is. */
function refusal(strategy: CommitStrategy, request: CommitRequest, view: ChainView): string | null {
  if (request.siblings === 'keep' && view.outsiders.length > 0 && !strategy.keepsSiblings)
    return 'would change what other images read';
  return null;
}

async function tryPlan(
  strategy: CommitStrategy,
  request: CommitRequest,
  view: ChainView,
  options?: Parameters<CommitStrategy['plan']>[2],
): Promise<CommitPlan | string> {
  try {
    return await strategy.plan(request, view, options);
  } catch (cause) {
    if (cause instanceof CommitError && cause.code === 'COMMIT_UNSUPPORTED') return cause.message;
    throw cause;
  }
}

function candidateOf({ name }: CommitStrategy, plan: CommitPlan | string): Candidate {
  if (typeof plan === 'string')
    return {
      strategy: name,
      refused: plan,
      bytesWritten: null,
      temporaryBytes: null,
      invalidated: null,
    };
  return {
    strategy: name,
    refused: null,
    bytesWritten: plan.bytesWrittenAtMost,
    temporaryBytes: plan.temporaryBytes,
    invalidated: plan.invalidates.length,
  };
}

function compare(a: CommitPlan, b: CommitPlan): number {
  return (
    a.strands.length - b.strands.length ||
    moved(a) - moved(b) ||
    a.temporaryBytes - b.temporaryBytes ||
    a.invalidates.length - b.invalidates.length
  );
}

function moved({ bytesToCopy, bytesToZero }: CommitPlan): number {
  return bytesToCopy + bytesToZero;
}

function whyOf({ strategy, plan }: Possible, others: readonly Possible[]): string {
  const { name } = strategy;
  const [second] = others;
  const cost = `${formatBytes(moved(plan))} to move`;
  if (second === undefined) return `${name}: the only one that can do it`;
  const rival = second.plan;
  if (rival.strands.length > plan.strands.length)
    return `${name}: keeps what ${otherImages(rival.strands.length)} (${cost})`;
  if (moved(rival) > moved(plan))
    return `${name}: moves the least, ${formatBytes(moved(plan))} (${second.strategy.name}: ${formatBytes(moved(rival))})`;
  if (rival.temporaryBytes > plan.temporaryBytes)
    return `${name}: ${cost} as with ${second.strategy.name}, and no temporary space`;
  if (rival.invalidates.length > plan.invalidates.length)
    return `${name}: ${cost}, and fewer images lose their meaning`;
  return `${name}: ${cost}, as with ${second.strategy.name}; the simplest of equals`;
}

function otherImages(count: number): string {
  return count === 1 ? 'another image reads' : `${count} other images read`;
}
