import { posix } from 'node:path';
import {
  type FileFacts,
  type FileIdentity,
  LockTable,
  StorageError,
  type StorageErrorCode,
} from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { MemoryFile } from './memory-file.ts';

let devices = 0;

/** Names and files, without who has them open: what survives a crash. Directories exist where they were made; `/` always. */
export class MemoryDisk {
  /** Inode of each path. */
  readonly names: Map<string, number>;
  readonly files: Map<number, MemoryFile>;
  /** Inode of each directory. */
  readonly directories: Map<string, number>;
  /** Locks of those who have its files open: a copy, and what a crash leaves, has none. */
  readonly locks: LockTable = new LockTable();
  /** Device number: copies are the same device, so that a file is the same file after a crash. */
  readonly #device: string;
  #nextInode: number;

  constructor(from?: MemoryDisk) {
    this.names = new Map(from?.names);
    this.files = new Map();
    for (const [inode, file] of from?.files ?? []) this.files.set(inode, file.copy());
    this.directories = new Map(from?.directories ?? [['/', 1]]);
    this.#device = from === undefined ? String(++devices) : from.#device;
    this.#nextInode = from === undefined ? 2 : from.#nextInode;
  }

  /** A disk of its own with the same content. */
  copy(): MemoryDisk {
    return new MemoryDisk(this);
  }

  /** Makes a directory and those above it. */
  makeDirectory(path: string): void {
    for (let at = path; !this.directories.has(at); at = posix.dirname(at))
      this.directories.set(at, this.#nextInode++);
  }

  /** The inode of a file's path. @throws StorageError `STORAGE_NOT_FOUND` or, for a directory, `STORAGE_NOT_REGULAR`. */
  inodeOf(path: string): number {
    const inode = this.names.get(path);
    if (inode !== undefined) return inode;
    if (this.directories.has(path)) throw diskError('STORAGE_NOT_REGULAR', path, 'is a directory');
    throw diskError('STORAGE_NOT_FOUND', path, 'does not exist');
  }

  /** The file of an inode; a new, empty and nameless one when there is none. */
  fileOf(inode: number): MemoryFile {
    const found = this.files.get(inode);
    if (found !== undefined) return found;
    const file = new MemoryFile();
    this.files.set(inode, file);
    this.#nextInode = Math.max(this.#nextInode, inode + 1);
    return file;
  }

  identityOf(inode: number): FileIdentity {
    return { device: this.#device, inode: String(inode) };
  }

  /** A new empty file. @throws StorageError `STORAGE_EXISTS` or `STORAGE_NOT_FOUND` (its directory). */
  create(path: string): number {
    if (this.names.has(path) || this.directories.has(path))
      throw diskError('STORAGE_EXISTS', path, 'exists already');
    this.assertDirectory(posix.dirname(path));
    const inode = this.#nextInode;
    this.names.set(path, inode);
    this.fileOf(inode);
    return inode;
  }

  /** Gives a file another name, which it takes from the file that has it. Returns its inode. @throws StorageError. */
  rename(from: string, to: string): number {
    const inode = this.inodeOf(from);
    if (this.directories.has(to)) throw diskError('STORAGE_NOT_REGULAR', to, 'is a directory');
    this.assertDirectory(posix.dirname(to));
    this.names.delete(from);
    this.names.set(to, inode);
    return inode;
  }

  /** @throws StorageError `STORAGE_NOT_FOUND`. */
  assertDirectory(path: string): void {
    if (!this.directories.has(path))
      throw diskError('STORAGE_NOT_FOUND', path, 'is not an existing directory');
  }

  facts(path: string): FileFacts {
    const directory = this.directories.get(path);
    if (directory !== undefined)
      return {
        kind: 'directory',
        identity: this.identityOf(directory),
        length: byteLength(0),
        allocated: byteLength(0),
        modified: '0',
      };
    const inode = this.inodeOf(path);
    const file = this.fileOf(inode);
    return {
      kind: 'file',
      identity: this.identityOf(inode),
      length: byteLength(file.length),
      allocated: byteLength(file.allocated),
      modified: String(file.changes),
    };
  }

  /** A hash of all names and the contents they lead to; equal for equal disks. Cheap where little changed since a copy. */
  digest(): string {
    return [...this.names]
      .sort(([left], [right]) => (left < right ? -1 : 1))
      .map(([path, inode]) => `${path}=${inode}:${this.fileOf(inode).digest()}`)
      .join(';');
  }
}

/** A StorageError that names the path. */
function diskError(code: StorageErrorCode, path: string, problem: string): StorageError {
  return new StorageError(code, `${path}: ${problem}`, { file: path });
}
