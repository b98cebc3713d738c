import { OwnedList } from '@downfold/chain';
import type {
  ChainView,
  CommitPlan,
  CommitStrategy,
  Cursor,
  NodeExtent,
  Step,
} from '@downfold/commit';

/** What is different in a broken strategy. */
export interface Changes {
  /** Of the plan that is made. */
  readonly plan?: (plan: CommitPlan) => CommitPlan;
  /** Of what is seen while steps are given. */
  readonly view?: (view: ChainView, plan: CommitPlan) => ChainView;
  /** Of the cursor that a run begins from. */
  readonly cursor?: (cursor: Cursor | null) => Cursor | null;
  /** Each step becomes these. */
  readonly step?: (step: Step, plan: CommitPlan) => readonly Step[];
  /** All steps, in another order: of strategies whose steps do not depend on what was done. */
  readonly order?: (steps: readonly Step[], plan: CommitPlan) => readonly Step[];
  /** All steps, as they come. */
  readonly flow?: (steps: AsyncIterable<Step>, plan: CommitPlan) => AsyncIterable<Step>;
}

/** A strategy that does something else. */
export function alter(strategy: CommitStrategy, changes: Changes): CommitStrategy {
  return {
    ...strategy,
    plan: async (request, view, options) => {
      const made = await strategy.plan(request, view, options);
      return changes.plan?.(made) ?? made;
    },
    steps: async function* (plan, view, cursor) {
      const seen = changes.view?.(view, plan) ?? view;
      const from = changes.cursor === undefined ? cursor : changes.cursor(cursor);
      const steps = changed(strategy.steps(plan, seen, from), plan, changes);
      if (changes.order === undefined) {
        for await (const step of changes.flow?.(steps, plan) ?? steps) yield [step];
        return;
      }
      const all: Step[] = [];
      for await (const step of steps) all.push(step);
      yield changes.order(all, plan);
    },
  };
}

async function* changed(
  batches: AsyncIterable<readonly Step[]>,
  plan: CommitPlan,
  { step: change }: Changes,
): AsyncGenerator<Step, void, undefined> {
  for await (const batch of batches)
    for (const step of batch)
      if (change === undefined) yield step;
      else yield* change(step, plan);
}

/** All steps but those for which this is so. */
export function without(drop: (step: Step, plan: CommitPlan) => boolean): Changes {
  return { step: (step, plan) => (drop(step, plan) ? [] : [step]) };
}

/** Steps for which this is so before all others. */
export function first(those: (step: Step) => boolean, steps: readonly Step[]): readonly Step[] {
  return [...steps.filter(those), ...steps.filter((step) => !those(step))];
}

/** A view whose merged extents are others. */
export function merging(view: ChainView, change: (extent: NodeExtent) => NodeExtent): ChainView {
  return {
    ...view,
    extentsAbove: async function* (subchain, range, options) {
      for await (const batch of view.extentsAbove(subchain, range, options))
        yield OwnedList.ofOwned(Array.from(batch, change));
    },
  };
}

/** An extent that no layer decides. */
export function undecided({ offset, length }: NodeExtent): NodeExtent {
  return { offset, length, status: 'unallocated', owner: null };
}
