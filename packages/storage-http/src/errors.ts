import { StorageError, type StorageErrorCode } from '@downfold/storage';

/** Where something failed: the URL as it was opened, and the first byte that was asked for; null: none was. */
export interface Place {
  readonly file: string;
  readonly offset: number | null;
}

/** A failure that names the URL and, where there is one, the byte. */
export function httpError(
  code: StorageErrorCode,
  { file, offset }: Place,
  problem: string,
  details: Record<string, string | number> = {},
  cause?: unknown,
): StorageError {
  const where = offset === null ? '' : ` (at byte ${offset})`;
  const at = offset === null ? {} : { offset };
  return new StorageError(code, `${file}: ${problem}${where}`, { file, ...at, ...details }, cause);
}

/** What a status says that is neither success nor one of ours. */
export function statusError(status: number, place: Place): StorageError {
  const codes: Readonly<Record<number, StorageErrorCode>> = {
    401: 'STORAGE_ACCESS',
    403: 'STORAGE_ACCESS',
    407: 'STORAGE_ACCESS',
    404: 'STORAGE_NOT_FOUND',
    410: 'STORAGE_NOT_FOUND',
  };
  return httpError(codes[status] ?? 'STORAGE_IO', place, `the server answers ${status}`, {
    status,
  });
}
