import type { Timing } from './process.ts';

/** One row of the benchmark: the same work by both sides, in turn. */
export interface Contest {
  /** What is done, unique within its stage. */
  readonly work: string;
  /** Who else does it; Markdown. */
  readonly against: string;
  /** The ratio that is wanted, ours to theirs; null: only reported. */
  readonly goal: number | null;
  /** Threads of the system do a part of the work, as those of a loop device do: what others took of the machine tells nothing. */
  readonly helped?: boolean;
  /** Each puts everything back as it was first, and times only the work. */
  ours(): Promise<Timing>;
  theirs(): Promise<Timing>;
  /** Whether the results are right, after both sides ran once. @throws Error that says what is wrong */
  verify?(): Promise<void>;
}

/** Files that several contests share, made once. */
export interface Stage {
  readonly name: string;
  /** The rows that `open` gives, without making a file: for `--only` and `--list`. */
  readonly works: readonly string[];
  /** Why it cannot be held on this machine; null: it can. Said aloud, and written into the report. */
  missing(): string | null;
  /** Makes the files in `directory`, which is empty. */
  open(directory: string): Promise<OpenStage>;
}

/** Contests whose files are there. What they hold (mounts, servers) goes with it. */
export interface OpenStage extends AsyncDisposable {
  readonly contests: readonly Contest[];
}

/** Contests that hold nothing but files. */
export const opened = (contests: readonly Contest[]): OpenStage => ({
  contests,
  [Symbol.asyncDispose]: async () => {},
});
