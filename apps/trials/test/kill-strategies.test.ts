import { expect, test } from 'vitest';
import { JOBS } from '../src/kill/jobs.ts';
import { killMatrix, matrixTable } from '../src/kill/matrix.ts';
import { currentTier, perTier } from '../src/tier.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// kill -9 of the real command line in every way to change a chain: what its journal does not give up reads as before, `resume`
// completes it, `abort` gives it up, and neither leaves an error, a leak or a file behind.
const seed = Number(process.env['DOWNFOLD_SEED'] ?? 1);
// quick: 2 of each here; ci: 3 of each on three file systems: 54; long: 504
const each = perTier({ quick: 2, ci: 3, long: 28 });

test.skipIf(!qemuIsHere())(
  `${each} kills of each of ${JOBS.length} jobs on each file system (seed ${seed})`,
  async () => {
    const rows = await killMatrix({ each, seed, quick: currentTier() === 'quick' });
    process.stdout.write(`kill -9 (seed ${seed}):\n${matrixTable(rows)}\n`);
    expect(rows.flatMap(({ failures }) => failures)).toEqual([]);
    const interrupted = rows.reduce((sum, { found }) => sum + found.interrupted, 0);
    // moments that miss the job prove little; with few kills much is left to chance
    const least = currentTier() === 'quick' ? 1 : (rows.length * each) / 2;
    expect(interrupted).toBeGreaterThanOrEqual(least);
  },
  perTier({ quick: 120_000, ci: 600_000, long: 3_600_000 }),
);
