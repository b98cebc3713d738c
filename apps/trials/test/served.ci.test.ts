import { perTier } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { tryKills } from '../src/served/kill.ts';
import { type RoundOptions, type RoundOutcome, tryRound } from '../src/served/round.ts';
import { SABOTAGES, sabotaged } from '../src/served/sabotage.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

// Four writers over NBD while a real server works beneath them, in peace and under kill -9. A failure prints the line that replays it.
const rounds = perTier({ quick: 1, ci: 1, long: 20 });
const blocks = perTier({ quick: 500, ci: 1000, long: 10_000 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const skipped = !qemuIsHere();

async function inRounds(
  what: string,
  trial: (options: RoundOptions) => Promise<RoundOutcome>,
): Promise<void> {
  const problems: string[] = [];
  const sums = { blocks: 0, jobs: 0, snapshots: 0, kills: 0 };
  for (let seed = first; seed < first + rounds; seed++) {
    const outcome = await trial({ seed, blocks });
    for (const figure of Object.keys(sums) as (keyof typeof sums)[])
      sums[figure] += outcome[figure];
    problems.push(...outcome.problems);
  }
  process.stdout.write(`${what}: ${rounds} rounds, ${JSON.stringify(sums)}\n`);
  expect(problems.slice(0, 10)).toEqual([]);
  expect(sums.blocks).toBeGreaterThanOrEqual(rounds * blocks);
}

describe.skipIf(skipped)('four writers', () => {
  test('while every strategy works beneath them, and the disk pivots', async () => {
    await inRounds('served', tryRound);
  });

  test('and the server is killed at random, and started again with --resume', async () => {
    await inRounds('killed', tryKills);
  });
});

// Each with the job whose kills show it.
const few = perTier({ quick: 0, ci: 1, long: SABOTAGES.length });
test.skipIf(skipped).each(SABOTAGES.slice(0, few))('found: $name', async ({ name, kinds }) => {
  const problems: string[] = [];
  for (let seed = 1; seed < 10 && problems.length === 0; seed++) {
    const options = { seed, blocks: 100, kinds, environment: sabotaged(name) };
    problems.push(...(await tryKills(options)).problems);
  }
  process.stdout.write(`${problems[0]}\n`);
  expect(problems).not.toEqual([]);
});
