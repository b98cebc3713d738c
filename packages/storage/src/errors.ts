import { DownfoldError } from '@downfold/units';

/**
 * Why an operation on stored bytes failed.
 * - `STORAGE_NOT_FOUND`: no file of that name.
 * - `STORAGE_EXISTS`: exclusive creation met an existing file.
 * - `STORAGE_NOT_REGULAR`: neither a regular file nor a block device (FIFO, socket, directory, ...).
 * - `STORAGE_ACCESS`: the system denies it (EACCES, EPERM, EROFS).
 * - `STORAGE_READ_ONLY`: a write to storage opened for reading.
 * - `STORAGE_NO_SPACE`: ENOSPC or EDQUOT.
 * - `STORAGE_IO`: any other error of a read, write or metadata call.
 * - `STORAGE_FLUSH_FAILED`: a flush failed, now or earlier. Final: what was written since the last good
 *   flush may be lost although it still reads back (kernels mark the pages clean).
 * - `STORAGE_UNSUPPORTED`: the backend lacks the ability; `supports` said so.
 * - `STORAGE_LOST`: the connection to the server that holds the bytes is lost. Whether a write under way has arrived is not
 *   known. Final for what is open.
 * - `STORAGE_CHANGED`: the bytes are no longer those that were opened: somebody replaced them. Final for what is open.
 * - `STORAGE_LOCKED`: another process has the file open in a way that excludes what is wanted.
 * - `STORAGE_CLOSED`: used after it was closed.
 * - `STORAGE_RANGE`: an offset or length outside what the backend can address.
 */
export type StorageErrorCode =
  | 'STORAGE_NOT_FOUND'
  | 'STORAGE_EXISTS'
  | 'STORAGE_NOT_REGULAR'
  | 'STORAGE_ACCESS'
  | 'STORAGE_READ_ONLY'
  | 'STORAGE_NO_SPACE'
  | 'STORAGE_IO'
  | 'STORAGE_FLUSH_FAILED'
  | 'STORAGE_UNSUPPORTED'
  | 'STORAGE_LOST'
  | 'STORAGE_CHANGED'
  | 'STORAGE_LOCKED'
  | 'STORAGE_CLOSED'
  | 'STORAGE_RANGE';

/** Every failure of a backend. `details.file` names the file, `details.offset` the byte where there is one. */
export class StorageError extends DownfoldError<StorageErrorCode> {
  override readonly name: string = 'StorageError';
}

/** Whether an operation failed for want of room alone: of a write, and of no flush, which says `STORAGE_FLUSH_FAILED`. */
export function isFull(cause: unknown): boolean {
  return cause instanceof StorageError && cause.code === 'STORAGE_NO_SPACE';
}
