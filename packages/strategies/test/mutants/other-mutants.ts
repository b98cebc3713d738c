import type { Step } from '@downfold/commit';
import { rebase, staged, stream } from '../../src/index.ts';
import { alter, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

/** Staged, stream and rebase. */
export const otherMutants: readonly Mutant[] = [
  {
    name: 'publishes what may be lost',
    killedBy: 'order/publish-after-barrier',
    strategy: alter(
      staged,
      without(
        (step) =>
          step.do === 'barrier' || (step.do === 'checkpoint' && step.cursor['phase'] === 'publish'),
      ),
    ),
  },
  {
    name: 'writes zeros into what an earlier run has published',
    killedBy: 'steps/only-what-formats-can',
    strategy: alter(staged, {
      flow: async function* (steps, { zeroTail, request }): AsyncGenerator<Step, void, undefined> {
        let isBegun = false;
        for await (const step of steps) {
          if (step.do === 'barrier') isBegun = true;
          if (step.do === 'invalidate' && !isBegun && zeroTail !== null)
            yield { do: 'zero', node: request.base as string, range: zeroTail };
          yield step;
        }
      },
    }),
  },
  {
    name: 'stages on a base that cannot be staged on',
    killedBy: 'steps/only-what-formats-can',
    strategy: {
      ...staged,
      plan: (request, view, options) => staged.plan(request, { ...view, can: () => true }, options),
    },
  },
  {
    name: 'a stream skips zeros',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(
      stream,
      without((step) => step.do === 'zero'),
    ),
  },
  {
    name: 'a stream relinks before it has pulled',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(stream, {
      order: (steps) => [...steps.filter((step) => step.do === 'relink'), ...steps],
    }),
  },
  {
    name: 'a rebase does not compare',
    killedBy: 'crash/preserved-images-read-as-before',
    strategy: alter(
      rebase,
      without((step) => step.do === 'copy'),
    ),
  },
];
