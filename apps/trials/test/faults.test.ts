import { fileURLToPath } from 'node:url';
import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { STRATEGIES } from '../src/crash/scenario.ts';
import type { FaultFigures } from '../src/faults/loop.ts';
import { FROM_SOURCE } from '../src/tools/from-source.ts';
import { inLanes } from '../src/tools/parallel.ts';
import { run } from '../src/tools/process.ts';

// Every operation of a job fails once, or from then on: see src/faults/loop.ts for what must hold. In processes of their own, on
// both cores. Replay: pnpm --filter @downfold/trials faults STRATEGY SEED SEED+1
const seeds = perTier({ quick: 3, ci: 60, long: 600 });
const most = perTier({ quick: 4, ci: 8, long: 40 });
const batch = perTier({ quick: 3, ci: 13, long: 20 });
// some minutes where a page fault is dear
const timeout = perTier({ quick: 60_000, ci: 600_000, long: 3_600_000 });
const main = fileURLToPath(new URL('../src/faults/main.ts', import.meta.url));

test(
  `fault loops over ${seeds} pools for each strategy`,
  async () => {
    const counts: Record<string, number> = {};
    const failures: string[] = [];
    const batches = STRATEGIES.flatMap((strategy) =>
      Array.from({ length: Math.ceil(seeds / batch) }, (_, index) => ({
        strategy,
        from: 1 + index * batch,
      })),
    );
    await inLanes(2, batches, async ({ strategy, from }) => {
      const args = [
        ...FROM_SOURCE,
        main,
        strategy,
        String(from),
        String(from + batch),
        String(most),
      ];
      const ended = await run(process.execPath, args, { timeout: 1_800_000 });
      const last = ended.stdout.trim().split('\n').at(-1) ?? '';
      if (!last.startsWith('{')) throw new Error(`${strategy} ${from}: ${ended.stderr}`);
      const figures = JSON.parse(last) as FaultFigures;
      failures.push(...figures.failures);
      for (const count of Object.values(figures.faults))
        counts[strategy] = (counts[strategy] ?? 0) + count;
    });
    const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
    process.stdout.write(`faults: ${all}, ${failures.length} wrong ${JSON.stringify(counts)}\n`);
    expect(failures).toEqual([]);
    expect(all).toBeGreaterThanOrEqual(perTier({ quick: 300, ci: 20_000, long: 200_000 }));
  },
  timeout,
);
