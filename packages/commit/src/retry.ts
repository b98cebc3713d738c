import { StorageError, type StorageErrorCode } from '@downfold/storage';
import { firstFailure } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { CommitResult, RunOptions } from './parts.ts';

/** What may go away by itself, or by somebody's help. A failed flush never does. */
const PASSING: ReadonlySet<StorageErrorCode> = new Set(['STORAGE_IO', 'STORAGE_NO_SPACE']);

/** Runs a job; after a failure that may pass, and when the caller wants it, tries again with everything opened anew. */
export async function retrying(
  attempt: () => Promise<CommitResult>,
  { onFailure }: RunOptions,
): Promise<CommitResult> {
  for (;;) {
    try {
      return await attempt();
    } catch (cause) {
      const failure = passing(firstFailure(cause));
      if (failure === null || onFailure === undefined || !(await onFailure(failure))) throw cause;
    }
  }
}

function passing(cause: unknown): Parameters<NonNullable<RunOptions['onFailure']>>[0] | null {
  const [error, copied] =
    cause instanceof CommitError && cause.code === 'COMMIT_STOPPED'
      ? [cause.cause, Number(cause.details['copied'])]
      : [cause, 0];
  if (!(error instanceof StorageError) || !PASSING.has(error.code)) return null;
  return { error, copied };
}
