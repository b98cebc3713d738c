import { StorageError, type StorageErrorCode } from '@downfold/storage';

const CODES: Readonly<Record<string, StorageErrorCode>> = {
  ENOENT: 'STORAGE_NOT_FOUND',
  ENOTDIR: 'STORAGE_NOT_FOUND',
  EEXIST: 'STORAGE_EXISTS',
  EISDIR: 'STORAGE_NOT_REGULAR',
  ENXIO: 'STORAGE_NOT_REGULAR',
  ELOOP: 'STORAGE_NOT_FOUND',
  EACCES: 'STORAGE_ACCESS',
  EPERM: 'STORAGE_ACCESS',
  EROFS: 'STORAGE_ACCESS',
  ETXTBSY: 'STORAGE_ACCESS',
  ENOSPC: 'STORAGE_NO_SPACE',
  EDQUOT: 'STORAGE_NO_SPACE',
  EFBIG: 'STORAGE_NO_SPACE',
};

const WORDS: Readonly<Partial<Record<StorageErrorCode, string>>> = {
  STORAGE_NOT_FOUND: 'no such file',
  STORAGE_EXISTS: 'exists already',
  STORAGE_NOT_REGULAR: 'is neither a regular file nor a block device',
  STORAGE_ACCESS: 'access denied',
  STORAGE_NO_SPACE: 'no space left on the device',
};

/** What a code stands for as well, in words of its own. */
const OWN_WORDS: Readonly<Record<string, string>> = {
  EFBIG: 'larger than files can be there, or than this user may make them',
};

/** A system call's error as a StorageError that names the file, the call and, where there is one, the byte. */
export function storageError(
  cause: unknown,
  file: string,
  call: string,
  offset?: number,
): StorageError {
  const errno = (cause as NodeJS.ErrnoException).code ?? 'unknown';
  const code = CODES[errno] ?? 'STORAGE_IO';
  const where = offset === undefined ? '' : ` at byte ${offset}`;
  return new StorageError(
    code,
    `${file}: ${OWN_WORDS[errno] ?? WORDS[code] ?? 'input/output error'} (${errno} in ${call}${where})`,
    { file, call, errno, ...(offset === undefined ? {} : { offset }) },
    cause,
  );
}

/** Runs a system call's wrapper and turns its error into a StorageError. */
export async function calling<T>(file: string, call: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw cause instanceof StorageError ? cause : storageError(cause, file, call);
  }
}
