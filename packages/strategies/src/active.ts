import {
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitStrategy,
  commitPlan,
  commonCosts,
  factsIn,
  planFacts,
  type Step,
} from '@downfold/commit';
import { rangeEnd } from '@downfold/units';
import { copySteps } from './copy-down.ts';
import { wholeDisk } from './steps.ts';

/**
 * Commits the active layer of a disk in use: what it shows above base is copied into base, then what the guest changed meanwhile, until base is what
 * the disk shows; then the disk pivots to base. Until then the active layer is the disk, so a job that was interrupted starts again from
 * the beginning: what had changed was known in memory only. Source: facts on crash safety, 2.7.
 */
export const active: CommitStrategy = {
  name: 'active',
  version: 1,
  operation: 'commit',
  keepsSiblings: false,
  pivots: true,
  summary: 'copy the active layer into base while it is written to, then make base the disk',
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const { base, intermediates, top } = facts;
    assertAlone(request.emptyTop, facts.overlays.length > 0, top.path);
    const lost = [...intermediates, ...view.outsiders];
    return commitPlan(active, request, view, facts, {
      writes: [base.node, top.node],
      reads: intermediates.map(({ node }) => node),
      preserves: view.chain.slice(0, view.chain.indexOf(base)).map(({ node }) => node),
      invalidates: [
        ...lost.map(({ node }) => ({ node, after: 'the first write to base' })),
        { node: top.node, after: 'the pivot' },
      ],
      relinks: [],
      costs: commonCosts(facts, [...lost, top], request),
    });
  },
  steps,
};

function assertAlone(emptyTop: boolean, hasOverlays: boolean, path: string): void {
  if (!emptyTop && !hasOverlays) return;
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    emptyTop
      ? `${path}: is left behind by a pivot, and not emptied`
      : `${path}: other images lie over the active layer, and would lose what they read`,
    { image: path, strategy: active.name },
  );
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top } = plan.request;
  if (base === null) return;
  const before = plan.invalidates.map(({ node }) => node).filter((node) => node !== top);
  yield [
    { do: 'invalidate', nodes: [base, ...before] },
    ...(plan.growBaseTo === null
      ? []
      : [{ do: 'grow', node: base, virtualSize: plan.growBaseTo } as const]),
  ];
  for await (const batch of copySteps(plan, view, 0, rangeEnd(wholeDisk(factsIn(plan, top)))))
    yield batch.filter((step) => step.do !== 'checkpoint');
  yield [
    { do: 'barrier', nodes: [base] },
    { do: 'pivot', from: top, to: base },
  ];
  yield plan.invalidates.map(({ node }) => ({ do: 'retire', node }));
}
