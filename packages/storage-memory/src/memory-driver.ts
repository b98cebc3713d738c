import type { FileIdentity, FileRun, StorageDriver, StorageSupport } from '@downfold/storage';
import { type ByteLength, byteLength, type HostOffset, type HostRange } from '@downfold/units';
import type { MemoryDisk } from './memory-disk.ts';
import type { MemoryFile } from './memory-file.ts';
import type { DiskObserver } from './observer.ts';

const SUPPORT: StorageSupport = { discard: true, resize: true };

/** Which file of a disk is open, and how. */
interface OpenFile {
  readonly path: string;
  readonly disk: MemoryDisk;
  readonly inode: number;
  readonly writable: boolean;
}

/** An open file of a `MemoryDisk`. Keeps the file when its name goes. */
export class MemoryDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport = SUPPORT;
  readonly identity: FileIdentity;
  readonly descriptor = null;
  readonly #inode: number;
  readonly #file: MemoryFile;
  readonly #observer: DiskObserver | undefined;

  constructor({ path, disk, inode, writable }: OpenFile, observer: DiskObserver | undefined) {
    this.label = path;
    this.writable = writable;
    this.identity = disk.identityOf(inode);
    this.#inode = inode;
    this.#file = disk.fileOf(inode);
    this.#observer = observer;
  }

  async length(): Promise<ByteLength> {
    return byteLength(this.#file.length);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    return this.#file.read(offset, target);
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    return this.#file.runAt(offset);
  }

  async write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    this.#file.write(offset, source);
    const bytes = source.slice();
    this.#observer?.changed({ do: 'write', inode: this.#inode, what, offset, bytes });
  }

  async writeZeroes(range: HostRange, what: string): Promise<void> {
    this.#file.zero(range.offset, range.length);
    this.#observer?.changed({ do: 'zero', inode: this.#inode, what, ...range });
  }

  /** Through the wrapper's buffer: so that what is copied is in the observer's log as bytes. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  async discard(range: HostRange): Promise<void> {
    this.#file.discard(range.offset, range.length);
    this.#observer?.changed({ do: 'discard', inode: this.#inode, what: 'discard', ...range });
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
