import type { ChainEnvironment, ChainPolicy, Formats } from '@downfold/chain';
import type { StorageBackend } from '@downfold/storage';
import type { JournalOwner } from './journal.ts';
import type { CaseBytes, CommitPlan } from './plan.ts';
import type { Clock, Progress, Throttle } from './progress.ts';
import type { Cursor } from './step.ts';
import type { CommitStrategy } from './strategy.ts';

/** What an engine is assembled from; nothing is looked up anywhere else. */
export interface EngineParts {
  readonly backend: StorageBackend;
  readonly formats: Formats;
  readonly strategies: readonly CommitStrategy[];
  readonly policy?: Partial<ChainPolicy>;
  /** This process. */
  readonly owner: JournalOwner;
  /** Whether another owner still runs. */
  isAlive(owner: JournalOwner): boolean;
  /** A new UUID. */
  newJobId(): string;
  readonly clock: Clock;
}

/** How a job is run. */
export interface RunOptions {
  /** Stops at the next consistent point; the journal stays, and the job rejects with `COMMIT_CANCELLED`. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Limits copying; change it while the job runs with `setRate`. Default: no limit. */
  readonly throttle?: Throttle;
  /** Reads base and top again and compares before anything is relinked. */
  readonly verify?: boolean;
  /** Deletes the intermediates at the end, unless something else needs them. */
  readonly deleteIntermediates?: boolean;
}

/** What a job did. Plain JSON. */
export interface CommitResult {
  readonly strategy: string;
  readonly job: string;
  readonly bytesCopied: number;
  readonly bytesZeroed: number;
  /** Copied and durable before this run: not copied again. */
  readonly bytesSkippedByResume: number;
  readonly cases: CaseBytes;
  /** Paths of images that no longer represent any point in time. */
  readonly invalidated: readonly string[];
  /** Those of them that could not be marked in the file, and why. */
  readonly unmarked: readonly { readonly image: string; readonly why: string }[];
  readonly relinked: readonly { readonly image: string; readonly backing: string }[];
  readonly verified: boolean;
  readonly deleted: readonly string[];
  readonly seconds: number;
}

/** A job about to run. */
export interface Job {
  readonly parts: EngineParts;
  readonly environment: ChainEnvironment;
  readonly plan: CommitPlan;
  readonly strategy: CommitStrategy;
  readonly options: RunOptions;
}

/** Where an interrupted job goes on. */
export interface Position {
  readonly cursor: Cursor | null;
  readonly copied: number;
  readonly zeroed: number;
}
