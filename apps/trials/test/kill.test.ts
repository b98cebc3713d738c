import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { killRound } from '../src/kill/round.ts';
import { draw } from '../src/tools/draw.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

// kill -9 of the real command line, on real files: in every moment active and top read as before; `resume` completes, with
// no leak and no journal left, and copies at most one epoch twice.
const seed = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const kills = perTier({ quick: 3, ci: 12, long: 100 });
const mebibytes = perTier({ quick: 32, ci: 512, long: 512 });

test.skipIf(!qemuIsHere())(`${kills} kills on ${mebibytes} MiB (seed ${seed})`, async () => {
  await using directory = await scratch('kill');
  const figures = await killRound(directory.path, { kills, mebibytes, from: draw(seed) });
  process.stdout.write(`kill -9: ${JSON.stringify(figures)}\n`);
  expect(figures.failures).toEqual([]);
});
