import { type BackendDriver, openBackend, type StorageBackend } from '@downfold/storage';
import { memoryBackendDriver } from './memory-backend.ts';
import type { MemoryDisk } from './memory-disk.ts';
import type { DiskObserver, FileChange, NameChange } from './observer.ts';

/** A change of bytes or of names. */
export type Change =
  | ({ readonly kind: 'file' } & FileChange)
  | ({ readonly kind: 'name' } & NameChange);

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

/** Starts recording on a copy of `initial`. */
export function record(initial: MemoryDisk): Recording {
  const log: LogEntry[] = [];
  const disk = initial.copy();
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
