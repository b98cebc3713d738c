import { openFleet } from '../tools/fleet.ts';
import { EFFORT, type Effort, type Violation } from './explore.ts';
import { type Point, pointsOfStrategy } from './points.ts';
import { STRATEGIES, type StrategyName } from './scenario.ts';
import type { Outcome, Task } from './trial.ts';

/** Shares of the states, by strategy; in hundredths. */
const SHARES: Readonly<Record<StrategyName, number>> = {
  'copy-down': 25,
  'depth-first': 25,
  preserve: 15,
  staged: 15,
  stream: 10,
  rebase: 10,
};

/** What is asked of a campaign. */
export interface CampaignOptions {
  /** Distinct crash states, all strategies together, at least. */
  readonly states: number;
  /** The first seed of each strategy. */
  readonly seed: number;
  readonly effort?: Effort;
  /** How many seeds a barrier is taken away in, at most, until its absence is noticed. 0: none is taken away. */
  readonly hunts?: number;
  /** Called with each violation at once, and about once in a minute with a line: what a long campaign found is not lost when it is stopped. */
  readonly onProgress?: (line: string) => void;
}

/** What came of all seeds of one strategy. */
export interface Figures {
  readonly strategy: StrategyName;
  seeds: number;
  states: number;
  recoveries: number;
  aborts: number;
  readonly violations: Violation[];
  readonly points: Map<Point, number>;
  /** For each barrier: in how many seeds its absence was not noticed, and the violation by which it was. */
  readonly barriers: Map<string, { missed: number; violation: Violation | null }>;
}

/** Explores seed after seed of each strategy, on all processors, until there are enough states. */
export async function campaign(options: CampaignOptions): Promise<readonly Figures[]> {
  const all = STRATEGIES.map(noFigures);
  const nextSeed = new Map(STRATEGIES.map((strategy) => [strategy, options.seed]));
  const reached = ({ strategy, states }: Figures): number =>
    (states * 100) / (options.states * SHARES[strategy]);
  const next = (): Task | null => {
    const [furthest] = all.toSorted((a, b) => reached(a) - reached(b));
    if (furthest === undefined || reached(furthest) >= 1) return null;
    const { strategy } = furthest;
    const seed = nextSeed.get(strategy) as number;
    nextSeed.set(strategy, seed + 1);
    return {
      strategy,
      seed,
      effort: options.effort ?? EFFORT,
      hits: furthest.points,
      skip: options.hunts === 0 ? null : settled(furthest, options.hunts ?? HUNTS),
    };
  };
  let told = performance.now();
  await using fleet = openFleet<Task, Outcome>(new URL('./worker.ts', import.meta.url));
  await fleet.run(next, (outcome) => {
    add(all.find((one) => one.strategy === outcome.strategy) as Figures, outcome);
    for (const violation of outcome.violations) options.onProgress?.(reportOf(violation));
    if (performance.now() - told < PROGRESS_MILLISECONDS) return;
    told = performance.now();
    options.onProgress?.(progressOf(all, options.states));
  });
  return all;
}

const PROGRESS_MILLISECONDS = 60_000;

function progressOf(all: readonly Figures[], wanted: number): string {
  const sum = (of: (one: Figures) => number): number =>
    all.reduce((total, one) => total + of(one), 0);
  const [states, violations] = [sum((one) => one.states), sum((one) => one.violations.length)];
  return `${states} of ${wanted} states, ${violations} violations`;
}

const HUNTS = 100;

function noFigures(strategy: StrategyName): Figures {
  const counts = { seeds: 0, states: 0, recoveries: 0, aborts: 0 };
  return { strategy, ...counts, violations: [], points: new Map(), barriers: new Map() };
}

/** Barriers that were caught, or tried often enough. */
function settled({ barriers }: Figures, hunts: number): readonly string[] {
  return [...barriers]
    .filter(([, { missed, violation }]) => violation !== null || missed >= hunts)
    .map(([barrier]) => barrier);
}

/** Adds what came of a seed. */
export function add(figures: Figures, outcome: Outcome): void {
  if (outcome.refused === null) figures.seeds++;
  figures.states += outcome.states;
  figures.recoveries += outcome.recoveries;
  figures.aborts += outcome.aborts;
  figures.violations.push(...outcome.violations);
  for (const [point, hits] of outcome.points)
    figures.points.set(point, (figures.points.get(point) ?? 0) + hits);
  for (const barrier of outcome.barriers)
    if (!figures.barriers.has(barrier))
      figures.barriers.set(barrier, { missed: 0, violation: null });
  for (const { barrier, violation } of outcome.removed) {
    const entry = figures.barriers.get(barrier);
    if (entry === undefined) continue;
    if (violation === null) entry.missed++;
    else entry.violation ??= violation;
  }
}

/** Points of a strategy that no recovery started from. */
export function missedPoints({ strategy, points }: Figures): readonly Point[] {
  return pointsOfStrategy(strategy).filter((point) => !points.has(point));
}

/** Barriers whose absence nobody noticed. */
export function survivors({ barriers }: Figures): readonly string[] {
  return [...barriers].filter(([, { violation }]) => violation === null).map(([name]) => name);
}

/** A line for each violation, with what runs its seed again. */
export function reportOf({ strategy, seed, state, problems }: Violation): string {
  return `${strategy}, seed ${seed}, ${state}: ${problems.join('; ')}\n  again: ${replayLine(strategy, seed)}`;
}

/** What runs a seed again. */
function replayLine(strategy: string, seed: number): string {
  return `DOWNFOLD_STRATEGY=${strategy} DOWNFOLD_SEED=${seed} pnpm --filter @downfold/trials crash`;
}

/** The table: a line for each strategy. */
export function tableOf(all: readonly Figures[]): string {
  const head = [
    'strategy',
    'seeds',
    'states',
    'violations',
    'recoveries',
    'aborts',
    'points',
    'barriers',
  ];
  const rows = all.map((one) => [
    one.strategy,
    one.seeds,
    one.states,
    one.violations.length,
    one.recoveries,
    one.aborts,
    ratio(pointsOfStrategy(one.strategy).length, missedPoints(one).length),
    ratio(one.barriers.size, survivors(one).length),
  ]);
  const total = ['seeds', 'states', 'violations', 'recoveries', 'aborts'].map((_, index) =>
    rows.reduce((sum, row) => sum + Number(row[index + 1]), 0),
  );
  const lines = [head, ...rows, ['all', ...total, '', '']].map((row) =>
    row.map((cell, index) => (index === 0 ? String(cell).padEnd(12) : String(cell).padStart(11))),
  );
  return lines.map((line) => line.join('').trimEnd()).join('\n');
}

function ratio(all: number, missing: number): string {
  return `${all - missing}/${all}`;
}
