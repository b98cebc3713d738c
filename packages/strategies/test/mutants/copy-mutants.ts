import type { Step } from '@downfold/commit';
import { byteLength } from '@downfold/units';
import { copyDown } from '../../src/index.ts';
import { alter, first, merging, undecided, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

const isRelink = (step: Step): boolean => step.do === 'relink';
const isRetire = (step: Step): boolean => step.do === 'retire';

/** What can go wrong when data goes down in one pass. */
export const copyMutants: readonly Mutant[] = [
  {
    name: 'zero is taken for unallocated',
    killedBy: 'end/base-shows-what-top-showed',
    strategy: alter(copyDown, {
      view: (view) =>
        merging(view, (extent) => (extent.status === 'zero' ? undecided(extent) : extent)),
    }),
  },
  {
    name: 'only what top itself holds is copied',
    killedBy: 'end/base-shows-what-top-showed',
    strategy: alter(copyDown, {
      view: (view, { request }) =>
        merging(view, (extent) => (extent.owner === request.top ? extent : undecided(extent))),
    }),
  },
  {
    name: 'relinks before it copies, as QEMU does',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(copyDown, { order: (steps) => first(isRelink, steps) }),
  },
  {
    name: 'relinks while copies may be lost',
    killedBy: 'order/relink-after-barrier',
    strategy: alter(
      copyDown,
      without(({ do: name }) => name === 'barrier' || name === 'checkpoint'),
    ),
  },
  {
    name: 'forgets the zeros past the end of a short top, as QEMU does',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(copyDown, { plan: (plan) => ({ ...plan, zeroTail: null }) }),
  },
  {
    name: 'does not grow a short base',
    killedBy: 'steps/within-the-disks',
    strategy: alter(
      copyDown,
      without((step) => step.do === 'grow'),
    ),
  },
  {
    name: 'grows base too far',
    killedBy: 'end/base-keeps-its-tail',
    strategy: alter(copyDown, {
      step: (step) =>
        step.do === 'grow'
          ? [{ ...step, virtualSize: byteLength(step.virtualSize + 512) }]
          : [step],
    }),
  },
  {
    name: 'retires images while top still reads through them',
    killedBy: 'crash/nobody-reads-through-the-retired',
    strategy: alter(copyDown, {
      order: (steps) => {
        const invalidate = steps.findIndex((step) => step.do === 'invalidate');
        const rest = steps.slice(invalidate + 1);
        return [...steps.slice(0, invalidate + 1), ...first(isRetire, rest)];
      },
    }),
  },
  {
    name: 'retires images that the journal does not know of',
    killedBy: 'order/retire-after-invalidate',
    strategy: alter(copyDown, {
      step: (step, { request }) =>
        step.do === 'invalidate' ? [{ ...step, nodes: [request.base as string] }] : [step],
      order: (steps) => steps.filter((step) => step.do === 'invalidate' || isRetire(step)),
    }),
  },
  {
    name: 'does not mark what lost its meaning',
    killedBy: 'end/the-invalid-are-marked',
    strategy: alter(copyDown, without(isRetire)),
  },
  {
    name: 'does not say who loses its meaning before it is lost',
    killedBy: 'crash/images-read-as-before-until-invalidated',
    strategy: alter(copyDown, {
      step: (step, { request }) =>
        step.do === 'invalidate' ? [{ ...step, nodes: [request.base as string] }] : [step],
    }),
  },
  {
    name: 'does not say that base becomes a mixture',
    killedBy: 'crash/base-reads-as-before-until-invalidated',
    strategy: alter(copyDown, {
      step: (step, { request }) =>
        step.do === 'invalidate'
          ? [{ ...step, nodes: step.nodes.filter((node) => node !== request.base) }]
          : [step],
    }),
  },
  {
    name: 'leaves one reference as it was',
    killedBy: 'end/linked-as-planned',
    strategy: alter(
      copyDown,
      without((step, { request }) => step.do === 'relink' && step.overlay === request.top),
    ),
  },
  {
    name: 'does not empty top',
    killedBy: 'end/top-is-empty',
    strategy: alter(
      copyDown,
      without((step) => step.do === 'deallocate'),
    ),
  },
  {
    name: 'copies from beside where data lies',
    killedBy: 'steps/copies-what-is-held',
    strategy: alter(copyDown, {
      step: (step) =>
        step.do === 'copy' && step.host !== null
          ? [{ ...step, host: (step.host + 512) as typeof step.host }]
          : [step],
    }),
  },
  {
    name: 'copies a piece twice at once',
    killedBy: 'steps/in-any-order',
    strategy: alter(copyDown, { step: (step) => (step.do === 'copy' ? [step, step] : [step]) }),
  },
];
