import { posix } from 'node:path';
import {
  type BackendDriver,
  type DirectoryEntry,
  openBackend,
  type StorageBackend,
  type StorageDriver,
  type StorageSupport,
} from '@downfold/storage';
import type { ByteLength, HostOffset, HostRange } from '@downfold/units';
import { MemoryDisk } from './memory-disk.ts';
import type { MemoryFile } from './memory-file.ts';

/** What happens on a disk, in one order over all files. */
export interface DiskObserver {
  /** Called after a change of a file's bytes. */
  changed(change: FileChange): void;
  /** Called when a flush is called; the function it returns, when the flush is over. */
  flushing(inode: number, barrier: string): () => void;
  /** Called after a change of names. */
  renamed(change: NameChange): void;
  /** As `flushing`, of a directory. */
  flushingDirectory(path: string, barrier: string): () => void;
}

/** A change of a file's bytes. */
export type FileChange = { readonly inode: number; readonly what: string } & (
  | { readonly do: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly do: 'zero' | 'discard'; readonly offset: number; readonly length: number }
  | { readonly do: 'length'; readonly length: number }
);

/** A change of names: `inode` gets the name `path`; null takes the name away. */
export interface NameChange {
  readonly path: string;
  readonly inode: number | null;
}

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
    open: async (path, mode) => {
      const inode = disk.inodeOf(path);
      return new MemoryDriver(path, inode, disk.fileOf(inode), mode === 'write', observer);
    },
    create: async (path) => {
      const inode = disk.create(path);
      observer?.renamed({ path, inode });
      return new MemoryDriver(path, inode, disk.fileOf(inode), true, observer);
    },
    remove: async (path) => {
      disk.inodeOf(path);
      disk.names.delete(path);
      observer?.renamed({ path, inode: null });
    },
    rename: async (from, to) => {
      const inode = disk.inodeOf(from);
      disk.names.delete(from);
      disk.names.set(to, inode);
      observer?.renamed({ path: from, inode: null });
      observer?.renamed({ path: to, inode });
    },
    flushDirectory: async (path, barrier) => {
      const done = observer?.flushingDirectory(path, barrier);
      await Promise.resolve();
      done?.();
    },
    facts: async (path) => disk.facts(path),
    list: async (directory) => list(disk, directory),
    realPath: async (path) => {
      disk.facts(path);
      return path;
    },
  };
}

function list(disk: MemoryDisk, directory: string): readonly DirectoryEntry[] {
  const inside = (path: string): boolean => path !== directory && posix.dirname(path) === directory;
  return [
    ...[...disk.names.keys()]
      .filter(inside)
      .map((path) => ({ name: posix.basename(path), kind: 'file' as const })),
    ...[...disk.directories]
      .filter(inside)
      .map((path) => ({ name: posix.basename(path), kind: 'directory' as const })),
  ];
}

const SUPPORT: StorageSupport = { discard: true, resize: true };

class MemoryDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport = SUPPORT;
  readonly identity: { readonly device: string; readonly inode: string };
  readonly #inode: number;
  readonly #file: MemoryFile;
  readonly #observer: DiskObserver | undefined;

  constructor(
    path: string,
    inode: number,
    file: MemoryFile,
    writable: boolean,
    observer: DiskObserver | undefined,
  ) {
    this.label = path;
    this.writable = writable;
    this.identity = { device: 'memory', inode: String(inode) };
    this.#inode = inode;
    this.#file = file;
    this.#observer = observer;
  }

  async length(): Promise<ByteLength> {
    return this.#file.length as ByteLength;
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    return this.#file.read(offset, target);
  }

  async write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    this.#file.write(offset, source);
    this.#observer?.changed({
      do: 'write',
      inode: this.#inode,
      what,
      offset,
      bytes: source.slice(),
    });
  }

  async writeZeroes(range: HostRange, what: string): Promise<void> {
    this.#file.zero(range.offset, range.length);
    this.#observer?.changed({ do: 'zero', inode: this.#inode, what, ...range });
  }

  async copyFrom(): Promise<number> {
    return 0;
  }

  async discard(range: HostRange): Promise<void> {
    const length = Math.min(range.length, this.#file.length - range.offset);
    if (length <= 0) return;
    this.#file.zero(range.offset, length);
    this.#observer?.changed({
      do: 'discard',
      inode: this.#inode,
      what: 'discard',
      offset: range.offset,
      length,
    });
  }

  async setLength(length: ByteLength): Promise<void> {
    this.#file.setLength(length);
    this.#observer?.changed({ do: 'length', inode: this.#inode, what: 'length', length });
  }

  async flush(barrier: string): Promise<void> {
    const done = this.#observer?.flushing(this.#inode, barrier);
    // what others write from here on is not covered
    await Promise.resolve();
    done?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
