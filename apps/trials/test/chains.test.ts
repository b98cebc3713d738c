import { expect, test } from 'vitest';
import { committerOf } from '../src/chains/committer.ts';
import { replayLine, tryChain } from '../src/chains/trial.ts';
import { perTier } from '../src/tier.ts';
import { inLanes } from '../src/tools/parallel.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// Random chains made by QEMU, committed by Downfold, judged by QEMU: see src/chains/judge.ts for what must hold.
const count = perTier({ quick: 10, ci: 200, long: 1000 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const seeds = Array.from({ length: count }, (_, index) => first + index);

test.skipIf(!qemuIsHere())(`${count} random chains from seed ${first}`, async () => {
  const failures: string[] = [];
  await inLanes(2, seeds, (seed) =>
    tryChain(seed, committerOf(seed)).catch((error: Error) => {
      failures.push(error.message);
    }),
  );
  process.stdout.write(
    `chains: ${count - failures.length} of ${count} right (${replayLine(first)})\n`,
  );
  expect(failures).toEqual([]);
});
