import { CommitError, type CommitPlan, type CommitStrategy } from '@downfold/commit';
import type { RuleId } from '@downfold/commit/compliance';
import { copyDown } from '../../src/index.ts';
import { alter } from '../alter.ts';
import type { Mutant } from './mutant.ts';

/** Copy-down with a plan that is not true. */
function planned(name: string, killedBy: RuleId, plan: (plan: CommitPlan) => CommitPlan): Mutant {
  return { name, killedBy, strategy: alter(copyDown, { plan }) };
}

function refusing(reason: () => Error): CommitStrategy {
  return {
    ...copyDown,
    plan: async () => {
      throw reason();
    },
  };
}

const isTop = ({ request }: CommitPlan, node: string): boolean => node === request.top;

/** Plans that say something else than what is done. */
export const planMutants: readonly Mutant[] = [
  {
    name: 'it refuses everything',
    killedBy: 'plan/can-be-made',
    strategy: refusing(() => new CommitError('COMMIT_UNSUPPORTED', 'not today')),
  },
  {
    name: 'it refuses without a code',
    killedBy: 'plan/refuses-by-code',
    strategy: refusing(() => new TypeError('undefined is not a chain')),
  },
  planned('a date in it does not survive JSON', 'plan/is-plain-json', (plan) => ({
    ...plan,
    made: new Date(0),
  })),
  planned('top is not promised', 'plan/promises-top-and-overlays', (plan) => ({
    ...plan,
    preserves: plan.preserves.filter((node) => !isTop(plan, node)),
  })),
  planned('nobody is said to be stranded', 'plan/names-who-is-lost', (plan) => ({
    ...plan,
    strands: [],
  })),
  planned('top keeps its reference', 'plan/relinks-overlays-and-top', (plan) => ({
    ...plan,
    relinks: plan.relinks.filter(({ overlay }) => !isTop(plan, overlay)),
  })),
  planned('a case is not counted', 'plan/counts-the-cases', (plan) => ({
    ...plan,
    cases: { ...plan.cases, topOnly: 0 },
  })),
  planned('copies are not counted', 'plan/counts-what-is-moved', (plan) => ({
    ...plan,
    bytesToCopy: 0,
  })),
  planned('relinks and marks are for free', 'plan/costs-are-upper-bounds', (plan) => {
    const costs = plan.costs.filter(({ node }) => node === plan.request.base);
    return { ...plan, costs, bytesWrittenAtMost: costs[0]?.written ?? 0 };
  }),
  planned('base counts as a source', 'plan/reads-stay-while-needed', (plan) => ({
    ...plan,
    reads: [...plan.reads, plan.request.base as string],
  })),
  planned(
    'overlays that are relinked are opened for reading',
    'steps/only-planned-images',
    (plan) => ({
      ...plan,
      writes: plan.writes.filter((node) => node === plan.request.base),
    }),
  ),
  planned('siblings are not mentioned', 'crash/nobody-else-changes', (plan) => {
    const chain = plan.images.slice(0, plan.chainLength).map(({ node }) => node);
    return {
      ...plan,
      strands: [],
      invalidates: plan.invalidates.filter(({ node }) => chain.includes(node)),
    };
  }),
  {
    name: 'it promises to keep siblings and does not',
    killedBy: 'plan/keeps-siblings',
    strategy: { ...copyDown, keepsSiblings: true },
  },
];
