import { StorageError } from '@downfold/storage';
import { DownfoldError, firstFailure } from '@downfold/units';

/**
 * Why a commit was refused, stopped or failed.
 * - `COMMIT_BAD_REQUEST`: base and top do not describe a subchain of the chain.
 * - `COMMIT_UNCHECKED`: an image that would be written failed its preflight check; repair it first.
 * - `COMMIT_STRANDS`: other images would stop reading what they read; `details.images` lists them.
 * - `COMMIT_UNREADABLE`: what cannot be read may be, or hide, images that would stop reading what they read; `details.unreadable` lists it.
 * - `COMMIT_INTERRUPTED_BEFORE`: a journal of an earlier job lies beside the image: resume it first.
 * - `COMMIT_NO_JOURNAL`: nothing to resume.
 * - `COMMIT_JOURNAL_BAD`: the journal is not ours, or was edited.
 * - `COMMIT_LIVE_OWNER`: the process that owns the journal still runs.
 * - `COMMIT_CHANGED`: an image is not what the plan or journal says; the message names the difference.
 * - `COMMIT_CANCELLED`: stopped by its signal at a consistent point; the journal is kept.
 * - `COMMIT_STOPPED`: storage failed; stopped at a consistent point, the journal is kept; `details.code` says how it failed, `details.happened` the message
 *   without how to go on.
 * - `COMMIT_FLUSH_FAILED`: the last run ended with a failed flush on this boot: what reads back may not be on the disk.
 * - `COMMIT_ABORTED`: the job was given up; finish giving it up.
 * - `COMMIT_PAST_ABORT`: too late to give it up: all data is in place.
 * - `COMMIT_VERIFY_FAILED`: base does not read as top did; nothing was relinked.
 * - `COMMIT_UNSUPPORTED`: the strategy cannot do this request; the message says why.
 * - `COMMIT_UNKNOWN_STRATEGY`: no strategy of that name was passed in.
 */
export type CommitErrorCode =
  | 'COMMIT_BAD_REQUEST'
  | 'COMMIT_UNCHECKED'
  | 'COMMIT_STRANDS'
  | 'COMMIT_UNREADABLE'
  | 'COMMIT_INTERRUPTED_BEFORE'
  | 'COMMIT_NO_JOURNAL'
  | 'COMMIT_JOURNAL_BAD'
  | 'COMMIT_LIVE_OWNER'
  | 'COMMIT_CHANGED'
  | 'COMMIT_CANCELLED'
  | 'COMMIT_STOPPED'
  | 'COMMIT_FLUSH_FAILED'
  | 'COMMIT_ABORTED'
  | 'COMMIT_PAST_ABORT'
  | 'COMMIT_VERIFY_FAILED'
  | 'COMMIT_UNSUPPORTED'
  | 'COMMIT_UNKNOWN_STRATEGY';

/** Every failure of a commit that is not a failure of storage, image or chain. */
export class CommitError extends DownfoldError<CommitErrorCode> {
  override readonly name: string = 'CommitError';
}

/** The storage error that an error is or comes of: an image that failed once says so to everyone, with what it was. */
export function storageErrorIn(cause: unknown): StorageError | null {
  for (let at = firstFailure(cause); at instanceof Error; at = at.cause)
    if (at instanceof StorageError) return at;
  return null;
}

/** Whether what a job failed of is a flush: the system says so once, and never again. */
export function isFailedFlush(cause: unknown): boolean {
  return storageErrorIn(cause)?.code === 'STORAGE_FLUSH_FAILED';
}
