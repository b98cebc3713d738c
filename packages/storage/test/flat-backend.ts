import { posix } from 'node:path';
import {
  type ByteLength,
  byteLength,
  type HostOffset,
  type HostRange,
  hostOffset,
} from '@downfold/units';
import {
  type BackendDriver,
  bytesTo,
  type CopyPiece,
  type DirectoryEntry,
  type FileFacts,
  type FileRun,
  LockTable,
  type StorageDriver,
  StorageError,
  type StorageErrorCode,
} from '../src/index.ts';

const PAGE_BYTES = 4096;

/** The bytes of one file: as they are, and as a power cut would leave them. */
class FlatFile {
  readonly inode: string;
  readonly secret: boolean;
  changes = 0;
  length = 0;
  pages: Map<number, Uint8Array> = new Map();
  durable: { length: number; pages: Map<number, Uint8Array> } = { length: 0, pages: new Map() };

  constructor(inode: number, secret: boolean) {
    this.inode = String(inode);
    this.secret = secret;
  }

  /** The parts of a range that lie in one page each: place in the page, place in the range, bytes. */
  *parts(
    offset: number,
    length: number,
  ): Generator<{ page: number; at: number; done: number; count: number }> {
    for (let done = 0; done < length; ) {
      const at = (offset + done) % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - at, length - done);
      yield { page: (offset + done - at) / PAGE_BYTES, at, done, count };
      done += count;
    }
  }

  write(offset: number, source: Uint8Array): void {
    this.changes += 1;
    for (const { page, at, done, count } of this.parts(offset, source.length)) {
      const bytes = this.pages.get(page) ?? new Uint8Array(PAGE_BYTES);
      this.pages.set(page, bytes);
      bytes.set(source.subarray(done, done + count), at);
    }
    this.length = Math.max(this.length, offset + source.length);
  }

  /** Zeros up to `end`; whole pages go. */
  clear(offset: number, end: number): void {
    this.changes += 1;
    for (const [page, bytes] of this.pages) {
      const start = page * PAGE_BYTES;
      if (start < end && start + PAGE_BYTES > offset) {
        bytes.fill(0, Math.max(0, offset - start), Math.max(0, end - start));
        if (start >= offset && start + PAGE_BYTES <= end) this.pages.delete(page);
      }
    }
  }

  flush(): void {
    const pages = new Map([...this.pages].map(([page, bytes]) => [page, bytes.slice()]));
    this.durable = { length: this.length, pages };
  }
}

/** The names of a disk in memory, and as a power cut would leave them. */
export class FlatDisk {
  names: Map<string, FlatFile> = new Map();
  durableNames: Map<string, FlatFile> = new Map();
  /** Symbolic links: target of each path. */
  readonly links: Map<string, string> = new Map();
  /** Paths of what is neither file nor directory. */
  readonly specials: Set<string> = new Set();
  readonly locks: LockTable = new LockTable();
  inodes = 1;

  /** The path with links followed. Links that lead nowhere are missing. */
  realPath(path: string): string {
    let at = path;
    for (let follow = 0; follow < 8; follow++) {
      const target = this.links.get(at);
      if (target === undefined) break;
      at = target;
    }
    if (at === '/' || this.names.has(at) || this.specials.has(at)) return at;
    throw failure('STORAGE_NOT_FOUND', path);
  }

  find(path: string): FlatFile {
    const file = this.names.get(this.realPath(path));
    if (file !== undefined) return file;
    throw failure('STORAGE_NOT_REGULAR', path);
  }

  taken(path: string): boolean {
    return path === '/' || this.names.has(path) || this.links.has(path) || this.specials.has(path);
  }
}

function failure(code: StorageErrorCode, path: string): StorageError {
  return new StorageError(code, `${path}: ${code}`, { file: path });
}

/**
 * The simplest backend that does everything the contract asks: one directory, `/`, in memory. The kit's tests run on it, and
 * their mutants are made of it, because this package cannot depend on those that implement it.
 */
export function flatBackend(disk: FlatDisk = new FlatDisk()): BackendDriver {
  const assertDirectory = (path: string): void => {
    if (path !== '/') throw failure('STORAGE_NOT_FOUND', path);
  };
  return {
    name: 'flat',
    open: async (path, mode) => new FlatDriver(path, disk.find(path), mode === 'write'),
    create: async (path, { secret }) => {
      assertDirectory(posix.dirname(path));
      if (disk.taken(path)) throw failure('STORAGE_EXISTS', path);
      const file = new FlatFile(disk.inodes++, secret);
      disk.names.set(path, file);
      return new FlatDriver(path, file, true);
    },
    remove: async (path) => {
      disk.find(path);
      disk.names.delete(path);
    },
    rename: async (from, to) => {
      const file = disk.find(from);
      assertDirectory(posix.dirname(to));
      disk.names.delete(from);
      disk.names.set(to, file);
    },
    flushDirectory: async (path) => {
      assertDirectory(path);
      disk.durableNames = new Map(disk.names);
    },
    facts: async (path) => factsOf(disk, disk.realPath(path)),
    sharesBlocks: async () => false,
    list: async (directory) => {
      assertDirectory(directory);
      const entries = (paths: Iterable<string>, kind: DirectoryEntry['kind']): DirectoryEntry[] =>
        [...paths].map((path) => ({ name: path.slice(1), kind }));
      return [
        ...entries(disk.names.keys(), 'file'),
        ...entries(disk.links.keys(), 'link'),
        ...entries(disk.specials, 'other'),
      ];
    },
    realPath: async (path) => disk.realPath(path),
    lock: async (path, request) => {
      const { inode } = disk.find(path);
      return disk.locks.lock(path, { device: '1', inode }, request, { remote: false });
    },
  };
}

function factsOf(disk: FlatDisk, path: string): FileFacts {
  const file = disk.names.get(path);
  return {
    kind: file !== undefined ? 'file' : path === '/' ? 'directory' : 'other',
    identity: { device: '1', inode: file?.inode ?? '0' },
    length: byteLength(file?.length ?? 0),
    allocated: byteLength((file?.pages.size ?? 0) * PAGE_BYTES),
    modified: String(file?.changes ?? 0),
  };
}

class FlatDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports = { discard: true, resize: true };
  readonly identity: { readonly device: string; readonly inode: string };
  readonly descriptor = null;
  readonly #file: FlatFile;

  constructor(path: string, file: FlatFile, writable: boolean) {
    this.label = path;
    this.writable = writable;
    this.identity = { device: '1', inode: file.inode };
    this.#file = file;
  }

  async length(): Promise<ByteLength> {
    return byteLength(this.#file.length);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    const filled = Math.max(0, Math.min(target.length, this.#file.length - offset));
    for (const { page, at, done, count } of this.#file.parts(offset, filled)) {
      const bytes = this.#file.pages.get(page)?.subarray(at, at + count);
      target.set(bytes ?? new Uint8Array(count), done);
    }
    return filled;
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    const { length, pages } = this.#file;
    let page = Math.floor(offset / PAGE_BYTES);
    const hole = !pages.has(page);
    while (page * PAGE_BYTES < length && pages.has(page) !== hole) page++;
    if (offset >= length || page * PAGE_BYTES >= length) return bytesTo(hole ? 0 : length, offset);
    return { hole, end: hostOffset(page * PAGE_BYTES) };
  }

  async write(offset: HostOffset, source: Uint8Array): Promise<void> {
    this.#file.write(offset, source);
  }

  async writeZeroes({ offset, length }: HostRange): Promise<void> {
    this.#file.clear(offset, offset + length);
    this.#file.length = Math.max(this.#file.length, offset + length);
  }

  async copyFrom(pieces: readonly CopyPiece<StorageDriver>[]): Promise<number> {
    let done = 0;
    for (const { source, from, to, length } of pieces) {
      if (!(source instanceof FlatDriver)) break;
      const bytes = new Uint8Array(length);
      await source.read(from, bytes);
      this.#file.write(to, bytes);
      done += length;
    }
    return done;
  }

  async discard({ offset, length }: HostRange): Promise<void> {
    this.#file.clear(offset, offset + length);
  }

  async setLength(length: ByteLength): Promise<void> {
    this.#file.clear(length, this.#file.length);
    this.#file.length = length;
  }

  async flush(): Promise<void> {
    this.#file.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The disk that a power cut leaves: of what may be lost, all. */
export function afterPowerCut(disk: FlatDisk): FlatDisk {
  const after = new FlatDisk();
  for (const [path, file] of disk.durableNames) {
    const kept = new FlatFile(Number(file.inode), file.secret);
    kept.length = file.durable.length;
    kept.pages = file.durable.pages;
    after.names.set(path, kept);
  }
  return after;
}
