import { type BackendDriver, openBackend, type StorageBackend } from '@downfold/storage';
import { applyChange } from './changes.ts';
import { memoryBackendDriver } from './memory-backend.ts';
import type { MemoryDisk } from './memory-disk.ts';
import type { Change, DiskObserver } from './observer.ts';

/** A flush that is over. It made durable what it concerns among the entries before number `covers`: those before it was called. */
export type Flush = { readonly barrier: string; readonly covers: number } & (
  | { readonly kind: 'flush'; readonly inode: number }
  | { readonly kind: 'flush directory'; readonly directory: string }
);

/** One entry of the log. */
export type LogEntry = Change | Flush;

/** A disk that remembers everything done to it, in one order over all files. */
export interface Recording {
  readonly backend: StorageBackend;
  /** The driver side of `backend`, for decorators. */
  readonly driver: BackendDriver;
  /** As it was at the start: all durable. */
  readonly initial: MemoryDisk;
  /** As it is now. */
  readonly disk: MemoryDisk;
  /** Grows with every change and every flush that ends. */
  readonly log: readonly LogEntry[];
}

/**
 * Starts recording on a copy of `initial`. `earlier`: goes on with a log that began there, on the disk as its changes left it: what is
 * pending in it stays pending, as after a killed process, whose successor may lose it to a power cut.
 */
export function record(initial: MemoryDisk, earlier: readonly LogEntry[] = []): Recording {
  const log: LogEntry[] = [...earlier];
  const disk = initial.copy();
  for (const entry of earlier)
    if (entry.kind === 'file' || entry.kind === 'name') applyChange(disk, entry);
  const observer: DiskObserver = {
    changed: (change) => log.push({ kind: 'file', ...change }),
    renamed: (change) => log.push({ kind: 'name', ...change }),
    flushing: (inode, barrier) => {
      const covers = log.length;
      return () => log.push({ kind: 'flush', inode, barrier, covers });
    },
    flushingDirectory: (directory, barrier) => {
      const covers = log.length;
      return () => log.push({ kind: 'flush directory', directory, barrier, covers });
    },
  };
  const driver = memoryBackendDriver(disk, observer);
  return { backend: openBackend(driver), driver, initial: initial.copy(), disk, log };
}
