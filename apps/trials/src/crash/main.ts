// `pnpm --filter @downfold/trials crash [STATES] [SEED]`: explores crash states; its last lines are the table.
// `DOWNFOLD_STRATEGY=NAME DOWNFOLD_SEED=N pnpm --filter @downfold/trials crash`: one seed, with its scenario.
import {
  add,
  campaign,
  type Figures,
  missedPoints,
  reportOf,
  survivors,
  tableOf,
} from './campaign.ts';
import { EFFORT } from './explore.ts';
import { pointsOfStrategy } from './points.ts';
import { STRATEGIES, type StrategyName, scenarioOf } from './scenario.ts';
import { tryTask } from './trial.ts';

const one = process.env['DOWNFOLD_SEED'];
const all = one === undefined ? await many() : [await single(Number(one))];
for (const figures of all) {
  for (const violation of figures.violations.slice(0, 20))
    process.stdout.write(`${reportOf(violation)}\n`);
  for (const point of missedPoints(figures))
    process.stdout.write(`${figures.strategy}: never crashed ${point}\n`);
  for (const barrier of survivors(figures))
    process.stdout.write(`${figures.strategy}: nobody misses '${barrier}'\n`);
}
process.stdout.write(`${tableOf(all)}\n`);
process.exitCode = all.every(({ violations }) => violations.length === 0) ? 0 : 1;

async function many(): Promise<readonly Figures[]> {
  const [states = 100_000, seed = 1] = process.argv.slice(2).map(Number);
  const started = performance.now();
  const figures = await campaign({
    states,
    seed,
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  const seconds = (performance.now() - started) / 1000;
  const explored = figures.reduce((sum, { states: some }) => sum + some, 0);
  process.stdout.write(
    `${explored} states in ${seconds.toFixed(0)} s, ${(explored / seconds).toFixed(0)} a second\n`,
  );
  return figures;
}

async function single(seed: number): Promise<Figures> {
  const name = process.env['DOWNFOLD_STRATEGY'] ?? 'copy-down';
  const strategy = STRATEGIES.find((known) => known === name) as StrategyName;
  process.stdout.write(`${JSON.stringify(scenarioOf(strategy, seed), null, 1)}\n`);
  const points = pointsOfStrategy(strategy);
  const counts = { seeds: 0, states: 0, recoveries: 0, aborts: 0 };
  const figures: Figures = {
    strategy,
    ...counts,
    violations: [],
    points: new Map(),
    barriers: new Map(),
  };
  // how much is gone on with depends on what other seeds hit: nothing yet, or all there is
  for (const hits of [0, EFFORT.pointHits]) {
    const known = new Map(points.map((point) => [point, hits]));
    add(figures, await tryTask({ strategy, seed, effort: EFFORT, hits: known, skip: [] }));
  }
  return figures;
}
