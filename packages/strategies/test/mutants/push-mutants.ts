import type { CommitPlan, Step } from '@downfold/commit';
import { preserve } from '../../src/index.ts';
import { alter, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

function isPush(step: Step, { request }: CommitPlan): boolean {
  return (
    (step.do === 'copy' && step.to !== request.base) ||
    (step.do === 'zero' && step.node !== request.base)
  );
}

function isBarrierOfPushes(step: Step, { request }: CommitPlan): boolean {
  return step.do === 'barrier' && !step.nodes.includes(request.base as string);
}

/** Pushes of an epoch after what they should save was overwritten, durably. */
async function* afterwards(
  steps: AsyncIterable<Step>,
  plan: CommitPlan,
): AsyncGenerator<Step, void, undefined> {
  const { base } = plan.request;
  let held: Step[] = [];
  for await (const step of steps) {
    if (isPush(step, plan) || isBarrierOfPushes(step, plan)) held.push(step);
    else {
      const writes = step.do === 'copy' || step.do === 'zero';
      if (!writes && held.length > 0) {
        yield { do: 'barrier', nodes: [base as string] };
        yield* held;
        held = [];
      }
      yield step;
    }
  }
}

/** What can go wrong when others are to keep what they read. */
export const pushMutants: readonly Mutant[] = [
  {
    name: 'a sibling is forgotten',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(preserve, {
      view: (view, { images, chainLength }) => {
        const chain = images.slice(0, chainLength).map(({ node }) => node);
        return {
          ...view,
          overlaysOf: (node) => view.overlaysOf(node).filter((one) => chain.includes(one.node)),
        };
      },
    }),
  },
  {
    name: 'pushes after it has overwritten',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(preserve, { flow: afterwards }),
  },
  {
    name: 'overwrites while pushes may be lost',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(preserve, {
      step: (step, plan) =>
        // something else to order the two
        isBarrierOfPushes(step, plan)
          ? [{ do: 'barrier', nodes: [plan.request.base as string] }]
          : [step],
    }),
  },
  {
    name: 'nothing orders pushes and what overwrites',
    killedBy: 'steps/in-any-order',
    strategy: alter(preserve, without(isBarrierOfPushes)),
  },
];
