import type { LiveDisk } from '@downfold/commit';
import { perTier } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { changed } from '../src/live/changed.ts';
import { type LiveTrial, STRATEGIES, tryLive } from '../src/live/trial.ts';

// A guest with many requests in flight while each strategy works beneath it, and every legal crash state, or a share of them.
// Replay: DOWNFOLD_TIER=ci DOWNFOLD_SEED=N vitest run --project trials live.ci
const rounds = perTier({ quick: 2, ci: 2, long: 400 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const share = perTier({ quick: 0.3, ci: 0.3, long: 1 });

describe('beneath a disk in use', () => {
  test.each(STRATEGIES.map(({ name }) => name))(
    '%s: nothing is lost, foreign or old',
    async (strategy) => {
      let [states, heldMs] = [0, 0];
      const problems: string[] = [];
      for (let seed = first; seed < first + rounds; seed++) {
        const ending = seed % 3 === 0 ? 'cancel' : 'complete';
        const outcome = await tryLive({ seed, strategy, requests: 40, ending, share });
        states += outcome.states;
        heldMs = Math.max(heldMs, outcome.heldMs);
        problems.push(...outcome.problems);
      }
      process.stdout.write(
        `live ${strategy}: ${states} crash states, held ${heldMs.toFixed(1)} ms\n`,
      );
      expect(problems.slice(0, 10)).toEqual([]);
    },
  );
});

/** What a job must not do without. Each is found within a few seeds. */
const mutants: readonly (Pick<LiveTrial, 'strategy' | 'sabotage' | 'ignoreFlush'> & {
  readonly name: string;
})[] = [
  {
    name: 'a pivot beside running requests',
    strategy: 'active',
    sabotage: (disk) =>
      changed(disk, {
        drained: async (work) => {
          const section = {
            get layers() {
              return disk.layers;
            },
            replace: (layers: LiveDisk['layers']) =>
              disk.drained((inner) => inner.replace(layers)).then(() => undefined),
            flush: () => disk.flush(),
            fail: () => undefined,
          };
          return { value: await work(section), drainMs: 0, workMs: 0, held: 0 };
        },
      }),
  },
  {
    name: 'changes of the new disk acknowledged before PIVOT is durable',
    strategy: 'active',
    ignoreFlush: (barrier) => barrier === 'journal: PIVOT',
  },
  {
    name: 'a stream that does not hold changes off',
    strategy: 'stream',
    sabotage: (disk) => changed(disk, { holding: (_range, _without, work) => work(disk.layers) }),
  },
];

test.each(mutants)('found: $name', async ({ name: _, ...mutant }) => {
  const problems: string[] = [];
  for (let seed = 1; seed < 40 && problems.length === 0; seed++) {
    const share = mutant.ignoreFlush === undefined ? 0 : 0.2;
    const outcome = await tryLive({ seed, requests: 40, share, ...mutant });
    problems.push(...outcome.problems);
  }
  process.stdout.write(`${problems[0]}\n`);
  expect(problems).not.toEqual([]);
});

// qcow2 keeps clusters that are being read, so no wrong byte would show that these are missing; the contract of images does not promise it.
test.each([
  ['depth-first', 'requests'],
  ['stream', 'changes'],
] as const)('%s holds off %s, of whole clusters of all layers', async (strategy, expected) => {
  const seen: string[] = [];
  let held = 0;
  const watched = (disk: LiveDisk): LiveDisk =>
    changed(disk, {
      holding: (range, without, work) => {
        const unit = Math.max(...disk.layers.map(({ image }) => image.geometry.clusterSize));
        const end = range.offset + range.length;
        const isWide = range.offset % unit === 0 && (end % unit === 0 || end === disk.size);
        if (without === expected) held++;
        if (!isWide) seen.push(`${range.offset}+${range.length} of ${unit}`);
        return disk.holding(range, without, work);
      },
    });
  for (let seed = 1; seed < 5; seed++) {
    const trial = { seed, strategy, requests: 5, share: 0, sabotage: watched };
    expect((await tryLive(trial)).problems).toEqual([]);
  }
  expect(held).toBeGreaterThan(0);
  expect(seen).toEqual([]);
});
