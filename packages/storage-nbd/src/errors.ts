import { NbdError } from '@downfold/nbd';
import { StorageError, type StorageErrorCode } from '@downfold/storage';

/** What the server says of one request. Whatever is not here is an I/O error. */
const BY_ERRNO: Readonly<Record<string, StorageErrorCode>> = {
  ENOSPC: 'STORAGE_NO_SPACE',
  EPERM: 'STORAGE_ACCESS',
  ENOTSUP: 'STORAGE_UNSUPPORTED',
  ESHUTDOWN: 'STORAGE_LOST',
};
/** What the server says of the name of an export. */
const BY_REPLY: Readonly<Record<string, StorageErrorCode>> = {
  unknown: 'STORAGE_NOT_FOUND',
  policy: 'STORAGE_ACCESS',
  tlsRequired: 'STORAGE_ACCESS',
  shutdown: 'STORAGE_LOST',
};
const BY_CODE: Readonly<Partial<Record<string, StorageErrorCode>>> = {
  NBD_CONNECT: 'STORAGE_LOST',
  NBD_CLOSED: 'STORAGE_LOST',
  NBD_PROTOCOL: 'STORAGE_LOST',
  NBD_LIMIT: 'STORAGE_LOST',
  NBD_TLS: 'STORAGE_ACCESS',
  NBD_NAME: 'STORAGE_NOT_FOUND',
  NBD_REFUSED: 'STORAGE_UNSUPPORTED',
  NBD_UNSUPPORTED: 'STORAGE_UNSUPPORTED',
};

function codeOf({ code, details }: NbdError): StorageErrorCode {
  const told = {
    ...(code === 'NBD_ERRNO' ? BY_ERRNO : {}),
    ...(code === 'NBD_REFUSED' ? BY_REPLY : {}),
  };
  return told[String(details['errno'] ?? details['reply'])] ?? BY_CODE[code] ?? 'STORAGE_IO';
}

/** Runs a call of the client and turns its error into a StorageError that names the export and, where there is one, the byte. */
export async function calling<T>(
  file: string,
  call: string,
  offset: number | null,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof NbdError)) throw cause;
    const where = offset === null ? '' : ` at byte ${offset}`;
    const errno = cause.details['errno'];
    throw new StorageError(
      codeOf(cause),
      `${file}: ${call}${where} failed: ${cause.message}`,
      {
        file,
        call,
        ...(offset === null ? {} : { offset }),
        ...(errno === undefined ? {} : { errno }),
      },
      cause,
    );
  }
}
