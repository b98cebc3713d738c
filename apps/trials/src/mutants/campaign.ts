import { availableParallelism } from 'node:os';
import { openFleet } from '../tools/fleet.ts';
import type { Fault, Outcome, Task } from './trial.ts';

/** Mutants that a thread tries at a time, at most, and shares of all that each thread gets at least: QEMU reads those of a batch in one process. */
const BATCH = 1000;
const SHARES = 4;
/** A mutant that takes longer hangs: many times what all of its parts may cost on a busy machine. Milliseconds. */
const HANGS = 60_000;
/** Mutants from one line of progress to the next. */
const PROGRESS = 20_000;

/** What came of all mutants. */
export interface Figures {
  mutants: number;
  accepted: number;
  /** Shown to QEMU. */
  shown: number;
  readonly faults: Fault[];
  readonly refusals: Map<string, number>;
}

/**
 * Tries mutants from seed `first` on, on all processors.
 * @param oneIn of how many accepted mutants one is shown to QEMU; 0: none
 * @param say called with each fault at once, and with how far it is, now and then
 * @throws Error naming the mutant that hangs, or fails the judge itself
 */
export async function campaign(
  {
    count,
    first,
    oneIn,
  }: { readonly count: number; readonly first: number; readonly oneIn: number },
  say: (line: string) => void = () => {},
): Promise<Figures> {
  const figures: Figures = { mutants: 0, accepted: 0, shown: 0, faults: [], refusals: new Map() };
  const underWay = new Map<number, Watched>();
  const batch = Math.min(BATCH, Math.ceil(count / (SHARES * availableParallelism())));
  let next = first;
  const give = (): Task | null => {
    if (next >= first + count) return null;
    const at = new Int32Array(new SharedArrayBuffer(4));
    const task = { first: next, count: Math.min(batch, first + count - next), at, oneIn };
    underWay.set(next, { at, seed: -1, since: performance.now() });
    next += task.count;
    return task;
  };
  await using fleet = openFleet<Task, Outcome>(new URL('./worker.ts', import.meta.url));
  const hung = Promise.withResolvers<never>();
  const watch = setInterval(() => {
    const seed = hanging(underWay);
    if (seed !== null) hung.reject(new Error(`mutant ${seed} hangs\n  again: ${replayLine(seed)}`));
  }, HANGS / 20);
  try {
    const all = fleet.run(give, (outcome) => {
      underWay.delete(outcome.first);
      add(figures, outcome);
      for (const fault of outcome.faults) say(reportOf(fault));
      if (figures.mutants % PROGRESS < outcome.mutants) say(progressOf(figures, count));
    });
    await Promise.race([all, hung.promise]);
  } finally {
    clearInterval(watch);
  }
  return figures;
}

/** A task, and since when its thread is at a seed. */
interface Watched {
  readonly at: Int32Array;
  seed: number;
  since: number;
}

/** The seed that some thread has been at for too long. */
function hanging(underWay: ReadonlyMap<number, Watched>): number | null {
  for (const task of underWay.values()) {
    const seed = Atomics.load(task.at, 0);
    if (seed !== task.seed) Object.assign(task, { seed, since: performance.now() });
    else if (performance.now() - task.since > HANGS) return seed;
  }
  return null;
}

function add(figures: Figures, outcome: Outcome): void {
  figures.mutants += outcome.mutants;
  figures.accepted += outcome.accepted;
  figures.shown += outcome.shown;
  figures.faults.push(...outcome.faults);
  for (const [key, times] of outcome.refusals)
    figures.refusals.set(key, (figures.refusals.get(key) ?? 0) + times);
}

/** A line for a fault, with what runs its mutant again. */
export function reportOf({ seed, what }: Fault): string {
  return `mutant ${seed}: ${what}\n  again: ${replayLine(seed)}`;
}

function progressOf({ mutants, accepted, shown, faults }: Figures, count: number): string {
  const mebibytes = Math.round(process.memoryUsage.rss() / 2 ** 20);
  return `${mutants} of ${count} mutants, ${accepted} accepted, ${shown} of them read by QEMU too, ${faults.length} faults; ${mebibytes} MiB`;
}

function replayLine(seed: number): string {
  return `DOWNFOLD_SEED=${seed} pnpm --filter @downfold/trials mutants`;
}

/** What came of it, in a few lines. */
export function tableOf({ mutants, accepted, shown, faults, refusals }: Figures): string {
  const parts = [...refusals].sort(([, a], [, b]) => b - a);
  return [
    `${mutants} mutants, ${accepted} accepted, ${shown} of them read by QEMU too, ${faults.length} faults; refused:`,
    ...parts.map(([key, times]) => `  ${key} ${times}`),
  ].join('\n');
}
