import { currentTier, perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import {
  campaign,
  type Figures,
  missedPoints,
  reportOf,
  survivors,
  tableOf,
} from '../src/crash/campaign.ts';

// Every legal crash of the real engine on small random pools, recoveries and aborts crashed too: see src/crash/promises.ts for what
// must hold at every moment, and src/crash/explore.ts for the method.
const states = perTier({ quick: 8_000, ci: 1_000_000, long: 20_000_000 });
const seed = Number(process.env['DOWNFOLD_SEED'] ?? 1);
/** How many pools a barrier is taken away in, until that is noticed. With few states there is no time for it. */
const hunts = perTier({ quick: 0, ci: 100, long: 400 });
const timeout = perTier({ quick: 120_000, ci: 1_500_000, long: 6 * 3_600_000 });

test(
  `${states} crash states from seed ${seed}`,
  async () => {
    const all = await campaign({
      states,
      seed,
      hunts,
      onProgress: (line) => process.stdout.write(`${line}\n`),
    });
    process.stdout.write(`${tableOf(all)}\n`);
    expect(all.flatMap(({ violations }) => violations.map(reportOf))).toEqual([]);
    expect(all.reduce((sum, one) => sum + one.states, 0)).toBeGreaterThanOrEqual(states);
    if (currentTier() === 'quick') return;
    const plainest = all.find(({ strategy }) => strategy === 'copy-down') as Figures;
    expect(plainest.states).toBeGreaterThanOrEqual(200_000);
    expect(survivors(plainest)).toEqual([]);
    for (const one of all) expect(missedPoints(one), one.strategy).toEqual([]);
    // what every strategy does the same way need be missed in one of them only
    const caught = new Set(
      all.flatMap(({ barriers }) =>
        [...barriers].flatMap(([name, { violation }]) => (violation === null ? [] : [name])),
      ),
    );
    const superfluous = new Set(all.flatMap(survivors).filter((name) => !caught.has(name)));
    process.stdout.write(`barriers: ${caught.size} caught, ${superfluous.size} not\n`);
    for (const name of superfluous) process.stdout.write(`nobody missed '${name}'\n`);
    expect([...superfluous]).toEqual([]);
  },
  timeout,
);
