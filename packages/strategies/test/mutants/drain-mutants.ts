import type { CommitPlan, Step } from '@downfold/commit';
import { depthFirst } from '../../src/index.ts';
import { alter, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

function isBarrierOver(step: Step, node: string | null): boolean {
  return step.do === 'barrier' && step.nodes.length === 1 && step.nodes[0] === node;
}

/** Relinks of top and the layers below it: those that depth-first does on its way. */
function isOnTheWay(step: Step, { images, chainLength, request }: CommitPlan): boolean {
  if (step.do !== 'relink') return false;
  const chain = images.slice(0, chainLength).map(({ node }) => node);
  return (
    chain.indexOf(step.overlay) >= 0 && chain.indexOf(step.overlay) <= chain.indexOf(request.top)
  );
}

async function* atTheEnd(
  steps: AsyncIterable<Step>,
  plan: CommitPlan,
): AsyncGenerator<Step, void, undefined> {
  const held: Step[] = [];
  for await (const step of steps) {
    if (isOnTheWay(step, plan)) held.push(step);
    else yield step;
  }
  yield* held;
}

/** Each relink on the way when the layer that it is of has been drained. */
async function* oneLayerLate(
  steps: AsyncIterable<Step>,
  plan: CommitPlan,
): AsyncGenerator<Step, void, undefined> {
  let held: Step[] = [];
  for await (const step of steps) {
    if (isOnTheWay(step, plan)) {
      yield* held;
      held = [step];
    } else if (step.do === 'checkpoint' && step.cursor['phase'] === 'relink') {
      yield* held;
      held = [];
      yield step;
    } else yield step;
  }
}

/**
 * Depth-first as it was discussed at first: layers are drained into base and deallocated from the bottom to top, and stay linked until the
 * end. It is wrong. Where top and the layer below both hold a sector, the lower one is shadowed: it is not drained and keeps its
 * stale content. Once top's sector is deallocated, top reads through its reference on the disk, and that leads to the stale
 * sector, not to base. With two layers of one sector that is so in 4 of the 16 patterns of what is allocated in base, the
 * intermediate, top and the overlay: those where the intermediate and top are. Source: facts on crash safety, 0.3.
 */
export const seedDepthFirst: Mutant = {
  name: 'drained layers stay linked, as was discussed at first',
  killedBy: 'crash/preserved-images-read-as-before',
  strategy: alter(depthFirst, { flow: atTheEnd }),
};

/** What can go wrong when layers are emptied. */
export const drainMutants: readonly Mutant[] = [
  seedDepthFirst,
  {
    name: 'deallocates before base holds the data durably',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(
      depthFirst,
      without((step, { request }) => isBarrierOver(step, request.base)),
    ),
  },
  {
    name: 'relinks the next layer after it was drained',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(depthFirst, { flow: oneLayerLate }),
  },
  {
    name: 'forgets what an intermediate longer than top holds past its end',
    killedBy: 'crash/images-read-as-before-until-invalidated',
    strategy: alter(
      depthFirst,
      without(
        (step, { request }) =>
          (step.do === 'copy' && step.to !== request.base) ||
          (step.do === 'zero' && step.node !== request.base),
      ),
    ),
  },
];
