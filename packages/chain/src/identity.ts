import { type FileIdentity, type StorageBackend, StorageError } from '@downfold/storage';

/** Which file has a name; null: none. */
export async function identityOf(
  path: string,
  backend: StorageBackend,
): Promise<FileIdentity | null> {
  try {
    return (await backend.facts(path)).identity;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}

/** A text that is equal for equal identities. */
export function identityKey(identity: FileIdentity): string {
  return `${identity.device}:${identity.inode}`;
}
