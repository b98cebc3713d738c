import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { tryPull } from '../src/pull/trial.ts';
import { inLanes } from '../src/tools/parallel.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// Streams and rebases of random chains made by QEMU: every image reads as before, no error, no leak, the reference as asked.
const count = perTier({ quick: 3, ci: 25, long: 2000 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);

test.skipIf(!qemuIsHere())(`${count} random streams and rebases from seed ${first}`, async () => {
  const failures: string[] = [];
  const seeds = Array.from({ length: count }, (_, index) => first + index);
  await inLanes(2, seeds, (seed) =>
    tryPull(seed).catch((error: Error) => {
      failures.push(error.message);
    }),
  );
  process.stdout.write(`pull: ${count - failures.length} of ${count} right\n`);
  expect(failures).toEqual([]);
});
