import {
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  commitPlan,
  commonCosts,
  factsIn,
  planFacts,
  type Step,
  writesBase,
} from '@downfold/commit';
import { rangeEnd } from '@downfold/units';
import { copySteps, preserved } from './copy-down.ts';
import { relinkStep, wholeDisk } from './steps.ts';

/**
 * Base's new content is written aside, under a mapping of its own that nobody reads; one write of base's header publishes all of it at
 * once; then the relinks. Before the publish every image reads as it did, and the job can be given up without a trace.
 */
export const staged: CommitStrategy = {
  name: 'staged',
  version: 1,
  operation: 'commit',
  keepsSiblings: false,
  summary: "write base's new content aside, publish it at once, then relink",
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    if (!view.can(facts.base.node, 'stage'))
      throw new CommitError(
        'COMMIT_UNSUPPORTED',
        `${facts.base.path}: a ${facts.base.format} image has no second mapping to write new content aside; use another strategy`,
        { image: facts.base.path, strategy: staged.name },
      );
    if (facts.base.dataFile !== undefined)
      throw new CommitError(
        'COMMIT_UNSUPPORTED',
        `${facts.base.path}: has an external data file, where new content would have no place beside the old; use another strategy`,
        { image: facts.base.path, strategy: staged.name },
      );
    const lost = writesBase(facts) ? [...facts.intermediates, ...view.outsiders] : [];
    const costs = commonCosts(facts, lost, request);
    const inBase = costs.find(({ node }) => node === facts.base.node)?.written ?? 0;
    return commitPlan(staged, request, view, facts, {
      writes: [
        facts.base.node,
        ...facts.relinks.map(({ overlay }) => overlay),
        ...(request.emptyTop ? [facts.top.node] : []),
      ],
      reads: [...facts.intermediates, facts.top].map(({ node }) => node),
      preserves: preserved(view, facts.base, facts.intermediates, facts.overlays),
      invalidates: lost.map(({ node }) => ({ node, after: 'the publish' })),
      costs,
      // what base holds now stays until the publish, beside what replaces it
      temporaryBytes: Math.min(inBase, facts.base.allocated),
    });
  },
  steps,
};

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, emptyTop, keepUndo } = plan.request;
  if (base === null) return;
  const whole = wholeDisk(factsIn(plan, top));
  if (cursor?.['phase'] !== 'relink') {
    const virtualSize = plan.growBaseTo ?? factsIn(plan, base).geometry.virtualSize;
    yield [{ do: 'stage', node: base, virtualSize, keepUndo }];
    // nothing can be written to a staging that is published already
    if (cursor?.['phase'] !== 'publish') {
      yield* copySteps(plan, view, Number(cursor?.['offset'] ?? 0), rangeEnd(whole));
      yield [
        ...(plan.zeroTail === null
          ? []
          : [{ do: 'zero', node: base, range: plan.zeroTail } as const]),
        { do: 'barrier', nodes: [base] },
        { do: 'checkpoint', cursor: { phase: 'publish' } },
      ];
    }
    yield [
      { do: 'invalidate', nodes: plan.invalidates.map(({ node }) => node) },
      { do: 'publish', node: base, keepUndo },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
  yield plan.invalidates.map(({ node }) => ({ do: 'retire', node }));
  // base holds all of it durably: that was made sure of before the relinks
  if (emptyTop) yield [{ do: 'deallocate', node: top, range: whole }];
}
