import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { tryDevice } from '../src/device/trial.ts';

// A guest with many requests in flight on a chain of real formats, a job that writes below it, and every legal crash state.
const count = perTier({ quick: 3, ci: 25, long: 1000 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);

test(`${count} guests from seed ${first} on raw <-- qcow2 <-- qcow2`, async () => {
  let states = 0;
  const problems: string[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const trial = await tryDevice(seed, 60);
    states += trial.states;
    problems.push(...trial.problems);
  }
  process.stdout.write(`device: ${states} crash states, ${problems.length} wrong\n`);
  expect(problems.slice(0, 20)).toEqual([]);
});
