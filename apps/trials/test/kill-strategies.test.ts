import { readFileSync } from 'node:fs';
import { currentTier, perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { killMatrix, matrixTable } from '../src/kill/matrix.ts';
import { everyFileSystem } from '../src/tools/file-system.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// kill -9 of the real command line in every way to change a chain: what its journal does not give up reads as before, `resume`
// completes it, `abort` gives it up, and neither leaves an error, a leak or a file behind.
const seed = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const kills = perTier({ quick: 6, ci: 36, long: 504 });
const quick = currentTier() === 'quick';
const timeout = perTier({ quick: 120_000, ci: 600_000, long: 7_200_000 });

test.skipIf(!qemuIsHere())(
  `${kills} kills of every job, on every file system (seed ${seed})`,
  async () => {
    const rows = await killMatrix({ kills, seed, quick });
    process.stdout.write(`kill -9 (seed ${seed}):\n${matrixTable(rows)}\n`);
    expect(rows.flatMap(({ failures }) => failures)).toEqual([]);
    const interrupted = rows.reduce((sum, { found }) => sum + found.interrupted, 0);
    // moments that miss the job prove little; with few kills much is left to chance
    expect(interrupted).toBeGreaterThanOrEqual(quick ? 1 : kills / 2);
  },
  timeout,
);

const mounting = 'file systems of their own are gone after a failure';
if (!quick)
  test(mounting, async () => {
    const paths: string[] = [];
    const failing = async (): Promise<void> => {
      await using open = await everyFileSystem();
      paths.push(...open.all.map(({ path }) => path));
      throw new Error('in the middle');
    };
    await expect(failing()).rejects.toThrow('in the middle');
    expect(paths.length).toBeGreaterThan(0);
    const mounts = readFileSync('/proc/mounts', 'utf8');
    expect(paths.filter((path) => mounts.includes(path))).toEqual([]);
  });
