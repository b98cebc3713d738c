import { DownfoldError } from '@downfold/units';
import { prepare } from './case.ts';
import {
  type Effort,
  Explorer,
  type Findings,
  noFindings,
  recordJob,
  type Violation,
} from './explore.ts';
import { type StrategyName, scenarioOf } from './scenario.ts';

/** One seed to be tried by one strategy. */
export interface Task {
  readonly strategy: StrategyName;
  readonly seed: number;
  readonly effort: Effort;
  /** Points that were hit so often already. */
  readonly points: Findings['points'];
  /** Barriers that are taken away when they occur; null: all. Those that were caught already need not be tried again. */
  readonly barriers: readonly string[] | null;
  readonly caught: readonly string[];
}

/** What came of a seed. Goes from one thread to another. */
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
  const findings: Findings = { ...noFindings(), points: new Map(task.points) };
  const outcome = { ...findings, strategy, seed, refused: null, barriers: [], removed: [] };
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
  return { ...outcome, ...findings, barriers: barriersOf(explorer), removed };
}

function barriersOf({ runs }: Explorer): readonly string[] {
  const names = new Set<string>();
  for (const { recording } of runs)
    for (const entry of recording.log) if ('barrier' in entry) names.add(entry.barrier);
  return [...names];
}

async function removeBarriers(
  { barriers, caught }: Task,
  explored: Explorer,
): Promise<Outcome['removed']> {
  const removed: { barrier: string; violation: Violation | null }[] = [];
  for (const barrier of barriersOf(explored)) {
    if (caught.includes(barrier) || barriers?.includes(barrier) === false) continue;
    let violation: Violation | null = null;
    for (const run of explored.runs) {
      if (!run.recording.log.some((entry) => 'barrier' in entry && entry.barrier === barrier))
        continue;
      violation = await explored.without(barrier, run);
      if (violation !== null) break;
    }
    removed.push({ barrier, violation });
  }
  return removed;
}
