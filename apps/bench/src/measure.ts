import type { Contest } from './contest.ts';
import type { Timing } from './process.ts';

/** Figures of one contest. */
export interface Result {
  readonly work: string;
  readonly against: string;
  readonly goal: number | null;
  readonly ours: readonly Timing[];
  readonly theirs: readonly Timing[];
  /** Median of the ratios of each pair, ours to theirs: below one, Downfold is faster. */
  readonly ratio: number;
}

/** How often and how quietly. */
export interface Measuring {
  /** Timed pairs. */
  readonly pairs: number;
  /** A pair during which others took more than this share of the CPU time, 0 to 1, is measured again. */
  readonly noise: number;
}

/** The middle value; of the lower half's largest and the upper half's smallest, the mean. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

/** A machine that is never quiet ends the wait for quiet pairs after this many times the pairs asked for. */
const MOST_TRIES = 40;

/** Runs both sides in turn, `pairs` times, after one pair that is verified and not timed. */
export async function measure(contest: Contest, measuring: Measuring): Promise<Result> {
  await contest.theirs();
  await contest.verify?.();
  await contest.ours();
  await contest.verify?.();
  const pairs: { ours: Timing; theirs: Timing }[] = [];
  for (let tries = 0; pairs.length < measuring.pairs; tries += 1) {
    if (tries === measuring.pairs * MOST_TRIES)
      throw new Error(`only ${pairs.length} of ${tries} pairs were quiet: others use this machine`);
    const ours = await contest.ours();
    const theirs = await contest.theirs();
    const noise = contest.helped === true ? 0 : Math.max(ours.noise, theirs.noise);
    if (noise <= measuring.noise) pairs.push({ ours, theirs });
  }
  const { work, against, goal } = contest;
  return {
    work,
    against,
    goal,
    ours: pairs.map(({ ours }) => ours),
    theirs: pairs.map(({ theirs }) => theirs),
    ratio: median(pairs.map(({ ours, theirs }) => ours.milliseconds / theirs.milliseconds)),
  };
}
