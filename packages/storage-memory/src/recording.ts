import { posix } from 'node:path';
import type { StorageBackend } from '@downfold/storage';
import {
  type DiskObserver,
  type FileChange,
  memoryBackend,
  type NameChange,
} from './memory-backend.ts';
import type { MemoryDisk } from './memory-disk.ts';

/** One entry of the log: a change, or a flush that made durable what stood before entry `covers`. */
export type LogEntry =
  | ({ readonly kind: 'file' } & FileChange)
  | ({ readonly kind: 'name'; readonly directory: string } & NameChange)
  | {
      readonly kind: 'flush';
      readonly inode: number;
      readonly barrier: string;
      readonly covers: number;
    }
  | {
      readonly kind: 'flush directory';
      readonly directory: string;
      readonly barrier: string;
      readonly covers: number;
    };

/** A disk that remembers everything done to it, in one order over all files. */
export interface Recording {
  readonly backend: StorageBackend;
  /** As it was at the start: all durable. */
  readonly initial: MemoryDisk;
  /** As it is now. */
  readonly disk: MemoryDisk;
  readonly log: readonly LogEntry[];
}

/** Starts recording on a copy of `initial`. */
export function record(initial: MemoryDisk): Recording {
  const log: LogEntry[] = [];
  const disk = initial.copy();
  const observer: DiskObserver = {
    changed: (change) => log.push({ kind: 'file', ...change }),
    renamed: (change) =>
      log.push({ kind: 'name', directory: posix.dirname(change.path), ...change }),
    flushing: (inode, barrier) => {
      const covers = log.length;
      return () => log.push({ kind: 'flush', inode, barrier, covers });
    },
    flushingDirectory: (directory, barrier) => {
      const covers = log.length;
      return () => log.push({ kind: 'flush directory', directory, barrier, covers });
    },
  };
  return { backend: memoryBackend(disk, observer), initial: initial.copy(), disk, log };
}
