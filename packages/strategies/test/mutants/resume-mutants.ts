import type { Step } from '@downfold/commit';
import { guestOffset, rangeEnd } from '@downfold/units';
import { copyDown } from '../../src/index.ts';
import { alter, without } from '../alter.ts';
import type { Mutant } from './mutant.ts';

/** Checkpoints of copy-down with another offset. */
function moved(step: Step, offset: (at: number) => number): readonly Step[] {
  if (step.do !== 'checkpoint' || step.cursor['phase'] !== 'copy') return [step];
  return [{ ...step, cursor: { ...step.cursor, offset: offset(Number(step.cursor['offset'])) } }];
}

let calls = 0;

/** What can go wrong when a job goes on. */
export const resumeMutants: readonly Mutant[] = [
  {
    name: 'the cursor is ahead of what was copied',
    killedBy: 'resume/comes-to-the-same-end',
    strategy: alter(copyDown, { step: (step) => moved(step, (at) => at + 512) }),
  },
  {
    name: 'the cursor never moves',
    killedBy: 'resume/copies-only-what-is-left',
    strategy: alter(copyDown, { step: (step) => moved(step, () => 0) }),
  },
  {
    name: 'there are no checkpoints while it copies',
    killedBy: 'resume/loses-no-more-than-a-checkpoint',
    strategy: alter(
      copyDown,
      without((step) => step.do === 'checkpoint' && step.cursor['phase'] === 'copy'),
    ),
  },
  {
    name: 'it cannot go on from its own cursor',
    killedBy: 'steps/never-throw',
    strategy: alter(copyDown, {
      cursor: (cursor) => {
        if (cursor !== null) throw new RangeError('not again');
        return cursor;
      },
    }),
  },
  {
    name: 'how it cuts its pieces depends on what it did before',
    killedBy: 'steps/deterministic',
    strategy: alter(copyDown, {
      step: (step) => {
        if (step.do !== 'copy' || step.range.length < 1024 || calls++ % 2 === 0) return [step];
        const { offset, length } = step.range;
        const half = (length / 2) as typeof length;
        const middle = guestOffset(offset + half);
        const host = step.host === null ? null : ((step.host + half) as typeof step.host);
        return [
          { ...step, range: { offset, length: half } },
          {
            ...step,
            host,
            range: { offset: middle, length: (rangeEnd(step.range) - middle) as typeof length },
          },
        ];
      },
    }),
  },
];
