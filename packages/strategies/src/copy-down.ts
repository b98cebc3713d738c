import type { LayerFacts } from '@downfold/chain';
import {
  type ChainView,
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
import { guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { addCopies, Epochs, epochOf, relinkStep, type Writing, wholeDisk } from './steps.ts';

/**
 * What QEMU does, made safe: one pass from the start of the disk to its end copies what top shows above base into base; then top's
 * overlays, and top itself, are relinked to base. Top and all that read through it stay valid at every moment. Images between base and
 * top stop representing any point in time with the first write, and are marked so at the end.
 */
export const copyDown: CommitStrategy = {
  name: 'copy-down',
  version: 1,
  operation: 'commit',
  keepsSiblings: false,
  summary: 'copy what top shows above base into base, then relink',
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const lost = writesBase(facts) ? [...facts.intermediates, ...view.outsiders] : [];
    return commitPlan(copyDown, request, view, facts, {
      writes: [
        facts.base.node,
        ...facts.relinks.map(({ overlay }) => overlay),
        ...(request.emptyTop ? [facts.top.node] : []),
      ],
      reads: [...facts.intermediates, facts.top].map(({ node }) => node),
      preserves: preserved(view, facts.base, facts.intermediates, facts.overlays),
      invalidates: lost.map(({ node }) => ({ node, after: 'the first write to base' })),
      costs: commonCosts(facts, lost, request),
    });
  },
  steps,
};

/** Top and all above it, overlays of top outside the chain, and what lies below base. */
export function preserved(
  view: ChainView,
  base: LayerFacts,
  intermediates: readonly LayerFacts[],
  overlays: readonly LayerFacts[],
): readonly string[] {
  const stay = view.chain.filter((layer) => layer !== base && !intermediates.includes(layer));
  return [...stay, ...overlays].map(({ node }) => node);
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, emptyTop } = plan.request;
  if (base === null) return;
  const whole = wholeDisk(factsIn(plan, top));
  if (cursor?.['phase'] !== 'relink') {
    yield [
      { do: 'invalidate', nodes: [base, ...plan.invalidates.map(({ node }) => node)] },
      ...(plan.growBaseTo === null
        ? []
        : [{ do: 'grow', node: base, virtualSize: plan.growBaseTo } as const]),
    ];
    yield* copySteps(plan, view, Number(cursor?.['offset'] ?? 0), rangeEnd(whole));
    yield [
      ...(plan.zeroTail === null
        ? []
        : [{ do: 'zero', node: base, range: plan.zeroTail } as const]),
      { do: 'barrier', nodes: [base] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
  yield plan.invalidates.map(({ node }) => ({ do: 'retire', node }));
  // base holds all of it durably: that was made sure of before the relinks
  if (emptyTop) yield [{ do: 'deallocate', node: top, range: whole }];
}

/** Copies and zeroes [from, to) of the disk with a checkpoint after each epoch. */
export async function* copySteps(
  plan: CommitPlan,
  view: ChainView,
  from: number,
  to: number,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top } = plan.request;
  if (base === null) return;
  const epochs = new Epochs(plan);
  const piece = epochOf(plan);
  const range = rangeBetween(guestOffset(from), to);
  for await (const batch of view.extentsAbove({ base, top }, range)) {
    const list: Step[] = [];
    const add = (step: Writing): void => epochs.admit(step, list);
    for (let index = 0; index < batch.length; index++) addCopies(batch, index, base, piece, add);
    yield list;
  }
}
