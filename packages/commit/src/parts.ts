import type { ChainEnvironment, ChainPolicy, Formats, SharedLocks } from '@downfold/chain';
import type { StagingToken } from '@downfold/image';
import type { StorageBackend } from '@downfold/storage';
import type { JournalOwner } from './journal.ts';
import type { ActiveEnding, LiveDisk, SectionReport } from './live.ts';
import type { CaseBytes, CommitPlan, Operation, Unreadable } from './plan.ts';
import type { Clock, Limit, Progress } from './progress.ts';
import type { Cursor } from './step.ts';
import type { CommitStrategy } from './strategy.ts';

/** What an engine is assembled from; nothing is looked up anywhere else. */
export interface EngineParts {
  readonly backend: StorageBackend;
  readonly formats: Formats;
  readonly strategies: readonly CommitStrategy[];
  readonly policy?: Partial<ChainPolicy>;
  /** Where whoever runs jobs has their images open, too. */
  readonly dataFileLocks?: SharedLocks | undefined;
  /** This process. */
  readonly owner: JournalOwner;
  /** Whether another owner still runs. */
  isAlive(owner: JournalOwner): boolean;
  /** A new UUID. */
  newJobId(): string;
  readonly clock: Clock;
}

/** A job that an error of storage stopped at a consistent point; its journal stays. */
export interface Failure {
  readonly error: Error & { readonly code: string };
  /** Bytes copied so far, durable or not. */
  readonly copied: number;
}

/** How a job is run. */
export interface RunOptions {
  /** Stops at the next consistent point; the journal stays, and the job rejects with `COMMIT_CANCELLED`. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Limits copying; change it while the job runs with `setRate`. Default: no limit. */
  readonly throttle?: Limit;
  /** Reads what was copied again and compares, before anything is relinked or deallocated. */
  readonly verify?: boolean;
  /** Deletes the images that are no longer valid, between base and top, at the end. */
  readonly deleteIntermediates?: boolean;
  /**
   * Asked after a read or write failed (an input/output error, no space): `true` opens the images again and goes on from the last
   * checkpoint. Never asked after a failed flush, which is final for its image. Default: the job rejects with `COMMIT_STOPPED`.
   */
  readonly onFailure?: (failure: Failure) => Promise<boolean>;
  /**
   * Goes on although the last run ended with a failed flush on this very boot of this machine: the user has made sure that what
   * reads back is on the disk (mounted the file system anew). Default false.
   */
  readonly afterFailedFlush?: boolean;
  /**
   * The disk that is in use: its images are the job's too, and are neither opened nor locked a second time. What the job writes below the active
   * layer is open for writing meanwhile. Default: nobody uses the images.
   */
  readonly live?: LiveDisk;
  /** Told of each time that requests of the disk were held. */
  readonly onSection?: (report: SectionReport) => void;
  /**
   * Called once, when all data is in place, before what others see is switched: the last relinks, a publish, a pivot. The job waits for it; when it
   * rejects nothing is switched.
   */
  readonly beforeSwitch?: () => Promise<void>;
  /** How a job ends whose top is the active layer. Default: completes as soon as it is ready. */
  readonly active?: ActiveEnding;
}

/** What a job did. Plain JSON. */
export interface CommitResult {
  readonly operation: Operation;
  readonly strategy: string;
  readonly job: string;
  readonly bytesCopied: number;
  readonly bytesZeroed: number;
  /** Copied and durable before this run: not copied again. */
  readonly bytesSkippedByResume: number;
  readonly cases: CaseBytes;
  /** Paths of images that no longer represent any point in time. */
  readonly invalidated: readonly string[];
  /** Those of them that could not be marked, and why. */
  readonly unmarked: readonly { readonly image: string; readonly why: string }[];
  /** What could not be read and may have read through what changed. */
  readonly unreadable: readonly Unreadable[];
  /** `backing` null: stands alone now. */
  readonly relinked: readonly { readonly image: string; readonly backing: string | null }[];
  readonly verified: boolean;
  /** Bytes that top keeps, although it was to be emptied: they were written since the job was interrupted, and base does not have them. Absent: none. */
  readonly bytesKept?: number;
  readonly deleted: readonly string[];
  /** Those that were to be deleted and could not be, and why; they are marked. */
  readonly undeleted: readonly { readonly image: string; readonly why: string }[];
  /** A job whose top was the active layer: path of the image that is the disk now. Absent: the disk is what it was. */
  readonly pivoted?: string;
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
  /** Stagings that are worth going on with, by node. */
  readonly stagings: Readonly<Record<string, StagingToken>>;
}

/** Where a job starts. */
export const START: Position = { cursor: null, copied: 0, zeroed: 0, stagings: {} };
