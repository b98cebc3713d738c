import { StorageError } from '@downfold/storage';
import { CommitError, isFailedFlush, storageErrorIn } from './errors.ts';
import type { Journal, JournalOwner } from './journal.ts';
import type { EngineParts } from './parts.ts';

/** Writes down for those who resume that a flush failed. Resolves with what to say when that fails too. */
export async function noteFailedFlush(
  journal: Journal,
  owner: JournalOwner,
  cause: StorageError,
): Promise<readonly string[]> {
  const image = String(cause.details['file'] ?? cause.message);
  const record = { type: 'FAILED', owner, image } as const;
  try {
    if (image === journal.path) await journal.noteAnew(record);
    else await journal.append(record);
    return [];
  } catch (second) {
    if (!(second instanceof StorageError)) throw second;
    return [`the journal could not be written either (${second.message})`];
  }
}

/** Does what may flush; a flush that fails in it is written down for those who resume. */
export async function notingFailedFlush<T>(
  journal: Journal,
  { owner }: EngineParts,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const error = storageErrorIn(cause);
    if (error !== null && isFailedFlush(cause)) await noteFailedFlush(journal, owner, error);
    throw cause;
  }
}

/** The image of which a flush failed since this machine was started; null: of none that is known. */
export function failedSinceBoot({ owner }: EngineParts, journal: Journal): string | null {
  // another host name on the same boot is a container's: the page cache is the same
  for (const record of journal.records)
    if (record.type === 'FAILED' && record.owner.bootId === owner.bootId) return record.image;
  return null;
}

/** What a failed flush left reads back from memory for as long as the machine runs, whether it is on the disk or not. @throws CommitError */
export function assertFlushesHeld(parts: EngineParts, journal: Journal): void {
  const image = failedSinceBoot(parts, journal);
  if (image !== null)
    throw new CommitError(
      'COMMIT_FLUSH_FAILED',
      `${image}: a flush failed, and the system may show what is not on the disk; restart the machine, or unmount and mount the file system and say --after-failed-flush`,
      { image },
    );
}
