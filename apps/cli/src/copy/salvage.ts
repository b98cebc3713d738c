import { ImageError } from '@downfold/image';
import { StorageError } from '@downfold/storage';
import { SECTOR_BYTES } from '@downfold/units';
import type { DiskSource, Run } from './disk-source.ts';

/**
 * The same disk, of which what cannot be read shows zeros. `warn` hears of each such sector: its first byte, and why. Behind what an image cannot say the
 * kind of, all is read, sector by sector where it must be.
 */
export function salvaged(source: DiskSource, warn: (at: number, cause: Error) => void): DiskSource {
  const sector = async (at: number, target: Uint8Array): Promise<void> => {
    try {
      await source.read(at, target);
    } catch (cause) {
      if (!isUnreadable(cause)) throw cause;
      target.fill(0);
      warn(at, cause);
    }
  };
  return {
    ...source,
    runs: (signal) => untilUnreadable(source, signal),
    read: async (at, target) => {
      try {
        await source.read(at, target);
      } catch (cause) {
        if (!isUnreadable(cause)) throw cause;
        for (let from = 0; from < target.length; from += SECTOR_BYTES)
          await sector(at + from, target.subarray(from, from + SECTOR_BYTES));
      }
    },
  };
}

async function* untilUnreadable(
  source: DiskSource,
  signal?: AbortSignal,
): AsyncGenerator<readonly Run[], void, undefined> {
  let at = 0;
  try {
    for await (const runs of source.runs(signal)) {
      yield runs;
      at = runs.at(-1)?.end ?? at;
    }
  } catch (cause) {
    if (!isUnreadable(cause)) throw cause;
    yield [{ kind: 'data', start: at, end: source.length }];
  }
}

/** The disk beneath, or what an image says of a cluster, is broken: other parts of it may be whole. */
function isUnreadable(cause: unknown): cause is Error {
  if (cause instanceof StorageError) return cause.code === 'STORAGE_IO';
  return cause instanceof ImageError && cause.code === 'IMAGE_CORRUPT';
}
