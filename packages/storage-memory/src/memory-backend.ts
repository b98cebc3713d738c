import { posix } from 'node:path';
import {
  type BackendDriver,
  type DirectoryEntry,
  openBackend,
  type StorageBackend,
} from '@downfold/storage';
import { MemoryDisk } from './memory-disk.ts';
import { MemoryDriver } from './memory-driver.ts';
import type { DiskObserver } from './observer.ts';

/** A backend over a `MemoryDisk`: everything stays in memory, nothing survives the process. */
export function memoryBackend(
  disk: MemoryDisk = new MemoryDisk(),
  observer?: DiskObserver,
): StorageBackend {
  return openBackend(memoryBackendDriver(disk, observer));
}

/** The driver side of `memoryBackend`, for decorators. */
export function memoryBackendDriver(disk: MemoryDisk, observer?: DiskObserver): BackendDriver {
  return {
    name: 'memory',
    open: async (path, mode) =>
      new MemoryDriver(
        { path, disk, inode: disk.inodeOf(path), writable: mode === 'write' },
        observer,
      ),
    create: async (path) => {
      const inode = disk.create(path);
      observer?.renamed({ do: 'create', path, inode });
      return new MemoryDriver({ path, disk, inode, writable: true }, observer);
    },
    remove: async (path) => {
      const inode = disk.inodeOf(path);
      disk.names.delete(path);
      observer?.renamed({ do: 'remove', path, inode });
    },
    rename: async (from, path) => {
      const inode = disk.rename(from, path);
      if (from !== path) observer?.renamed({ do: 'rename', from, path, inode });
    },
    flushDirectory: async (path, barrier) => {
      disk.assertDirectory(path);
      const done = observer?.flushingDirectory(path, barrier);
      // names that others change from here on are not covered
      await Promise.resolve();
      done?.();
    },
    facts: async (path) => disk.facts(path),
    list: async (directory) => list(disk, directory),
    realPath: async (path) => {
      // there are no links
      const real = posix.normalize(path);
      disk.facts(real);
      return real;
    },
    sharesBlocks: async () => false,
    lock: async (path, request) => {
      const inode = disk.inodeOf(path);
      return disk.locks.lock(path, disk.identityOf(inode), request, { remote: false });
    },
  };
}

function list(disk: MemoryDisk, directory: string): readonly DirectoryEntry[] {
  disk.assertDirectory(directory);
  const entries = (paths: Iterable<string>, kind: DirectoryEntry['kind']): DirectoryEntry[] =>
    [...paths]
      .filter((path) => path !== directory && posix.dirname(path) === directory)
      .map((path) => ({ name: posix.basename(path), kind }));
  return [...entries(disk.names.keys(), 'file'), ...entries(disk.directories.keys(), 'directory')];
}
