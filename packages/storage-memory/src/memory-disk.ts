import { posix } from 'node:path';
import { type FileFacts, StorageError, type StorageErrorCode } from '@downfold/storage';
import type { ByteLength } from '@downfold/units';
import { MemoryFile } from './memory-file.ts';

/** Names and files, without who has them open: what survives a crash. Directories exist where files are, and where made. */
export class MemoryDisk {
  /** Inode of each path. */
  readonly names: Map<string, number>;
  readonly files: Map<number, MemoryFile>;
  readonly directories: Set<string>;
  #nextInode: number;

  constructor(from?: MemoryDisk) {
    this.names = new Map(from?.names);
    this.files = new Map();
    for (const [inode, file] of from?.files ?? []) this.files.set(inode, file.copy());
    this.directories = new Set(from?.directories ?? ['/']);
    this.#nextInode = from === undefined ? 1 : from.#nextInode;
  }

  /** A disk of its own with the same content. */
  copy(): MemoryDisk {
    return new MemoryDisk(this);
  }

  /** Makes a directory and those above it. */
  makeDirectory(path: string): void {
    for (let at = path; ; at = posix.dirname(at)) {
      this.directories.add(at);
      if (at === '/') return;
    }
  }

  /** The inode of a path. @throws StorageError `STORAGE_NOT_FOUND` or, for a directory, `STORAGE_NOT_REGULAR`. */
  inodeOf(path: string): number {
    const inode = this.names.get(path);
    if (inode !== undefined) return inode;
    if (this.directories.has(path)) throw diskError('STORAGE_NOT_REGULAR', path, 'is a directory');
    throw diskError('STORAGE_NOT_FOUND', path, 'does not exist');
  }

  fileOf(inode: number): MemoryFile {
    return this.files.get(inode) as MemoryFile;
  }

  /** A new empty file. @throws StorageError `STORAGE_EXISTS` or `STORAGE_NOT_FOUND` (its directory). */
  create(path: string, inode: number = this.#nextInode++): number {
    if (this.names.has(path) || this.directories.has(path))
      throw diskError('STORAGE_EXISTS', path, 'exists already');
    if (!this.directories.has(posix.dirname(path)))
      throw diskError('STORAGE_NOT_FOUND', path, 'has no directory');
    this.names.set(path, inode);
    if (!this.files.has(inode)) this.files.set(inode, new MemoryFile());
    return inode;
  }

  facts(path: string): FileFacts {
    if (this.directories.has(path))
      return {
        kind: 'directory',
        identity: { device: 'memory', inode: `directory ${path}` },
        length: 0 as ByteLength,
        allocated: 0 as ByteLength,
        modified: '0',
      };
    const inode = this.inodeOf(path);
    const file = this.fileOf(inode);
    return {
      kind: 'file',
      identity: { device: 'memory', inode: String(inode) },
      length: file.length as ByteLength,
      allocated: file.allocated as ByteLength,
      modified: '0',
    };
  }

  /** A hash of all names and contents; equal for equal disks. */
  digest(): string {
    return [...this.names]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, inode]) => `${path}=${inode}:${this.fileOf(inode).digest()}`)
      .join(';');
  }
}

/** A StorageError that names the path. */
export function diskError(code: StorageErrorCode, path: string, problem: string): StorageError {
  return new StorageError(code, `${path}: ${problem}`, { file: path });
}
