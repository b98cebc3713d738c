import type { Step } from '@downfold/commit';
import { active } from '../../src/index.ts';
import { alter, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

const isPivot = (step: Step): boolean => step.do === 'pivot';
const moves = (step: Step): boolean => step.do === 'copy' || step.do === 'zero';

/** The commit of an active layer. */
export const pivotMutants: readonly Mutant[] = [
  {
    name: 'pivots to what may be lost',
    killedBy: 'order/pivot-after-barrier',
    strategy: alter(
      active,
      without((step) => step.do === 'barrier'),
    ),
  },
  {
    name: 'never pivots',
    killedBy: 'end/the-disk-pivoted',
    strategy: alter(
      active,
      without((step) => isPivot(step) || step.do === 'retire'),
    ),
  },
  {
    name: 'pivots before anything is copied',
    killedBy: 'crash/the-disk-shows-what-was-written',
    strategy: alter(active, {
      order: (steps) => [
        ...steps.filter((step) => step.do === 'invalidate' || step.do === 'grow'),
        ...steps.filter(isPivot),
        ...steps.filter((step) => step.do !== 'invalidate' && !isPivot(step)),
      ],
    }),
  },
  {
    name: 'copies zeros of the active layer never',
    killedBy: 'crash/the-disk-shows-what-was-written',
    strategy: alter(
      active,
      without((step) => step.do === 'zero'),
    ),
  },
  {
    name: 'copies once more after the pivot, over what clients wrote since',
    killedBy: 'crash/the-disk-shows-what-was-written',
    strategy: alter(active, {
      order: (steps) => {
        const at = steps.findIndex(isPivot) + 1;
        return [...steps.slice(0, at), ...steps.filter(moves), ...steps.slice(at)];
      },
    }),
  },
  {
    name: 'pivots to a base that is shorter than the disk',
    killedBy: 'steps/within-the-disks',
    strategy: alter(
      active,
      without((step) => step.do === 'grow' || moves(step)),
    ),
  },
  {
    name: 'retires the active layer before another one is the disk',
    killedBy: 'order/retire-after-invalidate',
    strategy: alter(active, {
      order: (steps) => [...steps.filter((step) => !isPivot(step)), ...steps.filter(isPivot)],
    }),
  },
  {
    name: 'pivots to the active layer itself',
    killedBy: 'steps/only-what-formats-can',
    strategy: alter(active, {
      step: (step) => [step.do === 'pivot' ? { ...step, to: step.from } : step],
    }),
  },
  {
    name: 'does not say that the active layer will be superseded',
    killedBy: 'plan/names-who-is-lost',
    strategy: alter(active, {
      plan: (plan) => ({
        ...plan,
        invalidates: plan.invalidates.filter(({ node }) => node !== plan.request.top),
      }),
    }),
  },
];
