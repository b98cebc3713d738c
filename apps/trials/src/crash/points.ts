import type { CommitStrategy, JournalRecord, Step } from '@downfold/commit';
import type { LogEntry } from '@downfold/storage-memory';
import type { StrategyName } from './scenario.ts';

/** What a crash can come just before, into, or just after: a step of a strategy, or a record of the journal. */
export type Point =
  `${'before' | 'after'} ${`step ${Step['do']}` | `record ${JournalRecord['type']}`}`;

/** Where in a log each step begins, in order. */
export type StepMarks = { readonly at: number; readonly step: Step['do'] }[];

/** A strategy that notes where in `log` each of its steps begins. Its steps come one by one, which changes nothing for the engine. */
export function marking(
  strategy: CommitStrategy,
  log: readonly LogEntry[],
  marks: StepMarks,
): CommitStrategy {
  return {
    ...strategy,
    async *steps(plan, view, cursor) {
      for await (const batch of strategy.steps(plan, view, cursor))
        for (const step of batch) {
          marks.push({ at: log.length, step: step.do });
          yield [step];
        }
    },
  };
}

/**
 * The points of a log: of each of its lengths, from 0 to its own. Lengths between which nothing changed, only flushes ended, share
 * theirs: a process that was killed there left the same bytes.
 */
export function pointsOf(
  log: readonly LogEntry[],
  marks: StepMarks,
): readonly (readonly Point[])[] {
  const points: Point[][] = [[]];
  for (const entry of log) points.push('barrier' in entry ? (points.at(-1) as Point[]) : []);
  for (const [index, { at, step }] of marks.entries()) {
    points[at]?.push(`before step ${step}`);
    points[marks[index + 1]?.at ?? log.length]?.push(`after step ${step}`);
  }
  for (const [index, entry] of log.entries()) {
    const type = recordOf(entry);
    if (type === null) continue;
    points[index]?.push(`before record ${type}`);
    points[index + 1]?.push(`after record ${type}`);
  }
  return points;
}

function recordOf(entry: LogEntry): JournalRecord['type'] | null {
  if (entry.kind !== 'file' || entry.do !== 'write') return null;
  const [what, type] = entry.what.split(' ');
  return what === 'journal' ? (type as JournalRecord['type']) : null;
}

const COMMITS: readonly StrategyName[] = ['copy-down', 'depth-first', 'preserve', 'staged'];
const ALL: readonly StrategyName[] = [...COMMITS, 'stream', 'rebase'];
const MARKING: readonly StrategyName[] = ['copy-down', 'depth-first', 'staged'];

/** Who takes which step. A new kind of step does not compile until somebody says so here. */
const STEPS: Readonly<Record<Step['do'], readonly StrategyName[]>> = {
  grow: ['copy-down', 'depth-first', 'preserve'],
  copy: ALL,
  zero: [...COMMITS, 'stream'],
  deallocate: COMMITS,
  barrier: ALL,
  invalidate: COMMITS,
  stage: ['staged'],
  publish: ['staged'],
  relink: ALL,
  // only beneath a disk in use: see live/
  pivot: [],
  retire: MARKING,
  checkpoint: ALL,
};

/** Who writes which record. FAILED is written after a failed flush only: see the fault loops. */
const RECORDS: Readonly<Record<JournalRecord['type'], readonly StrategyName[]>> = {
  INTENT: ALL,
  INVALIDATES: COMMITS,
  PROGRESS: ALL,
  SWITCH: ALL,
  PUBLISH: ['staged'],
  PIVOT: [],
  FAILED: [],
  ABORT: ALL,
  RESUMED: ALL,
  DONE: MARKING,
};

/** Every point that a strategy's jobs have. */
export function pointsOfStrategy(strategy: StrategyName): readonly Point[] {
  const steps = Object.entries(STEPS).filter(([, users]) => users.includes(strategy));
  const records = Object.entries(RECORDS).filter(([, users]) => users.includes(strategy));
  return [
    ...steps.map(([step]) => `step ${step}` as `step ${Step['do']}`),
    ...records.map(([type]) => `record ${type}` as `record ${JournalRecord['type']}`),
  ].flatMap((name) => [`before ${name}`, `after ${name}`] as const);
}
