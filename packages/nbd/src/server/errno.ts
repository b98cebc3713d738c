import { NbdError } from '../errors.ts';
import { ERRNO, type Errno } from '../protocol.ts';

const byCode: Readonly<Record<string, Errno>> = {
  EPERM: 'EPERM',
  EACCES: 'EPERM',
  EROFS: 'EPERM',
  ENOSPC: 'ENOSPC',
  EDQUOT: 'ENOSPC',
  EFBIG: 'ENOSPC',
  ENOMEM: 'ENOMEM',
  STORAGE_NO_SPACE: 'ENOSPC',
  STORAGE_READ_ONLY: 'EPERM',
  STORAGE_ACCESS: 'EPERM',
};

const texts: Readonly<Record<string, string>> = {
  EPERM: 'not permitted',
  ENOSPC: 'no space left',
  ENOMEM: 'out of memory',
};

/** What a client is told about a failure: its text only when it was made for the client; others name files of the host. */
export function toldTo(error: unknown): { errno: Errno; message: string } {
  if (error instanceof NbdError && error.code === 'NBD_ERRNO') {
    const errno = error.details['errno'];
    if (typeof errno === 'string' && errno in ERRNO)
      return { errno: errno as Errno, message: error.message };
  }
  const code = (error as { code?: unknown } | null)?.code;
  const errno = (typeof code === 'string' ? byCode[code] : undefined) ?? 'EIO';
  return { errno, message: texts[errno] ?? 'input/output error' };
}
