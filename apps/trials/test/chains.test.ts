import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { committerOf } from '../src/chains/committer.ts';
import { replayLine, tryChain } from '../src/chains/trial.ts';
import { inLanes } from '../src/tools/parallel.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// Random chains made by QEMU, committed by Downfold, judged by QEMU: see src/chains/judge.ts for what must hold.
const strategies = [
  { strategy: 'copy-down', counts: { quick: 3, ci: 200, long: 2000 } },
  { strategy: 'depth-first', counts: { quick: 1, ci: 25, long: 2000 } },
  { strategy: 'preserve', counts: { quick: 1, ci: 25, long: 2000 } },
  { strategy: 'staged', counts: { quick: 1, ci: 25, long: 2000 } },
];
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);

test.skipIf(!qemuIsHere()).each(strategies)(
  'random chains by $strategy',
  async ({ strategy, counts }) => {
    const count = perTier(counts);
    const seeds = Array.from({ length: count }, (_, index) => first + index);
    const failures: string[] = [];
    await inLanes(2, seeds, (seed) =>
      tryChain(seed, committerOf(seed), strategy).catch((error: Error) => {
        failures.push(error.message);
      }),
    );
    process.stdout.write(
      `chains: ${count - failures.length} of ${count} right by ${strategy} (${replayLine(first, strategy)})\n`,
    );
    expect(failures).toEqual([]);
  },
);
