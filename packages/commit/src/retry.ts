import { StorageError, type StorageErrorCode } from '@downfold/storage';
import { CommitError } from './errors.ts';
import type { CommitResult, RunOptions } from './parts.ts';

/** What may go away by itself, or by somebody's help. A failed flush never does. */
const PASSING: ReadonlySet<StorageErrorCode> = new Set(['STORAGE_IO', 'STORAGE_NO_SPACE']);

/** Runs a job; after a failure that may pass, and when the caller wants it, opens everything again and goes on. */
export async function retrying(
  begin: () => Promise<CommitResult>,
  goOn: () => Promise<CommitResult>,
  { onFailure }: RunOptions,
): Promise<CommitResult> {
  for (let next = begin; ; ) {
    try {
      return await next();
    } catch (cause) {
      const failure = passing(cause);
      if (failure === null || onFailure === undefined || !(await onFailure(failure))) throw cause;
      // an attempt that failed before it wrote a journal starts again, one that wrote it goes on
      next = cause instanceof CommitError ? goOn : next;
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
