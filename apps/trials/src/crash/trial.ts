import { DownfoldError } from '@downfold/units';
import { prepare } from './case.ts';
import {
  type Effort,
  Explorer,
  type Findings,
  noFindings,
  type Run,
  recordJob,
  type Violation,
} from './explore.ts';
import { type StrategyName, scenarioOf } from './scenario.ts';

/** One seed to be tried by one strategy. */
export interface Task {
  readonly strategy: StrategyName;
  readonly seed: number;
  readonly effort: Effort;
  /** How often points were hit before: those that were not are looked for. */
  readonly hits: Findings['points'];
  /** Barriers that need not be taken away any more; null: none is. */
  readonly skip: readonly string[] | null;
}

/** What came of a seed; `points`: hits of this seed alone. Goes from one thread to another. */
export interface Outcome extends Findings {
  readonly strategy: StrategyName;
  readonly seed: number;
  /** Why the strategy cannot do it, and nothing was tried; null: it can. */
  readonly refused: string | null;
  /** Barriers that the job, or a recovery that was crashed again, issued. */
  readonly barriers: readonly string[];
  /** Those of them whose absence was tried, and what it led to: null: nothing that was seen. */
  readonly removed: readonly { readonly barrier: string; readonly violation: Violation | null }[];
}

/** Builds, runs, and crashes the case of a seed. */
export async function tryTask(task: Task): Promise<Outcome> {
  const { strategy, seed, effort } = task;
  const findings: Findings = { ...noFindings(), points: new Map(task.hits) };
  const outcome: Outcome = {
    ...noFindings(),
    strategy,
    seed,
    refused: null,
    barriers: [],
    removed: [],
  };
  const one = await prepare(scenarioOf(strategy, seed));
  if (typeof one === 'string') return { ...outcome, refused: one };
  const explorer = new Explorer(one, effort, findings);
  try {
    await explorer.exploreJob(await recordJob(one));
  } catch (cause) {
    if (!(cause instanceof DownfoldError)) throw cause;
    // an undo snapshot has conditions of its own, which only the publish sees
    if (cause.code === 'IMAGE_UNSUPPORTED') return { ...outcome, refused: cause.message };
    const problems = [`${cause.code}: ${cause.message}`];
    findings.violations.push({ strategy, seed, state: 'the job', problems });
  }
  const removed = findings.violations.length > 0 ? [] : await removeBarriers(task, explorer);
  const points = new Map(
    [...findings.points].map(([point, hits]) => [point, hits - (task.hits.get(point) ?? 0)]),
  );
  return { ...outcome, ...findings, points, barriers: barriersOf(explorer), removed };
}

function barriersOf({ runs }: Explorer): readonly string[] {
  const names = new Set<string>();
  for (const { recording } of runs)
    for (const entry of recording.log) if ('barrier' in entry) names.add(entry.barrier);
  return [...names];
}

async function removeBarriers({ skip }: Task, explored: Explorer): Promise<Outcome['removed']> {
  const removed: { barrier: string; violation: Violation | null }[] = [];
  if (skip === null) return removed;
  for (const barrier of barriersOf(explored)) {
    if (skip.includes(barrier)) continue;
    let violation: Violation | null = null;
    for (const run of explored.runs.filter((one) => issues(one, barrier))) {
      violation = await explored.without(barrier, run);
      if (violation !== null) break;
    }
    removed.push({ barrier, violation });
  }
  return removed;
}

function issues({ recording }: Run, barrier: string): boolean {
  return recording.log.some((entry) => 'barrier' in entry && entry.barrier === barrier);
}
