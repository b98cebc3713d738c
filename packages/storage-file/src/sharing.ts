import { constants } from 'node:fs';
import { StorageError } from '@downfold/storage';
import type { Calls } from './calls.ts';
import { storageError } from './errno.ts';
import { openFile } from './open-file.ts';

/** Blocks of files that can be shared are multiples of this in size and place; a file system of larger ones refuses what is cut. */
export const BLOCK_BYTES = 4096;

/** Past the end of every file, and askew: a range that no file system shares. */
const NOWHERE = 2 ** 52 + 1;

/** What a failure to share blocks means: never for these two files, not for this range, or an error. */
export function refusalOf(errno: string): 'never' | 'not these' | null {
  if (errno === 'EINVAL') return 'not these';
  return NEVER.has(errno) ? 'never' : null;
}

/** EPERM: a file that takes no such call, as one that may only grow. It says itself whether it takes a write. */
const NEVER: ReadonlySet<string> = new Set([
  'EOPNOTSUPP',
  'ENOTSUP',
  'ENOSYS',
  'ENOTTY',
  'EXDEV',
  'EPERM',
]);

/**
 * Whether two files can share blocks: asked for a range that cannot be shared, a file system that can says that the range is wrong, and
 * others that they cannot. A target that may not be written, or is gone, shares nothing.
 */
export async function sharesBlocks(
  from: string,
  to: string,
  { shareBlocks }: Pick<Calls, 'shareBlocks'>,
): Promise<boolean> {
  if (shareBlocks === null) return false;
  await using opened = new AsyncDisposableStack();
  const open = async (path: string, flags: number): Promise<number> => {
    return opened.use(await openFile(path, flags | constants.O_NONBLOCK)).fd;
  };
  try {
    const [source, target] = [
      await open(from, constants.O_RDONLY),
      await open(to, constants.O_RDWR),
    ];
    shareBlocks(source, NOWHERE, target, NOWHERE, 1);
    return true;
  } catch (cause) {
    if (cause instanceof StorageError) {
      if (cause.code === 'STORAGE_ACCESS') return false;
      throw cause;
    }
    const refusal = refusalOf(String((cause as NodeJS.ErrnoException).code));
    if (refusal === null) throw storageError(cause, to, 'ioctl');
    return refusal === 'not these';
  }
}
