import {
  bytesTo,
  type FileIdentity,
  type FileRun,
  type StorageDriver,
  StorageError,
  type StorageSupport,
} from '@downfold/storage';
import { type ByteLength, byteLength, type HostOffset, type HostRange } from '@downfold/units';
import type { NbdExport } from './nbd-export.ts';

/** How an export was opened. */
export interface Opening {
  readonly identity: FileIdentity;
  readonly writable: boolean;
  /** Lets the export go; called once. */
  readonly release: () => Promise<void>;
}

/** An export as one of those who have it open sees it. */
export class NbdDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport;
  readonly identity: FileIdentity;
  readonly descriptor = null;
  readonly #export: NbdExport;
  readonly #release: () => Promise<void>;

  constructor(of: NbdExport, { identity, writable, release }: Opening) {
    this.#export = of;
    this.#release = release;
    this.label = of.uri;
    this.identity = identity;
    this.writable = writable;
    this.supports = { discard: of.discards, resize: false };
  }

  async length(): Promise<ByteLength> {
    return byteLength(this.#export.size);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    return await this.#export.read(offset, target);
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    return bytesTo(this.#export.size, offset);
  }

  async write(offset: HostOffset, source: Uint8Array): Promise<void> {
    await this.#export.write(offset, source);
  }

  async writeZeroes({ offset, length }: HostRange): Promise<void> {
    await this.#export.writeZeroes(offset, length);
  }

  /** Through the wrapper's buffer: servers do not copy. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  /** Zeros that may be holes: of what was trimmed, a server may show the old bytes. */
  async discard({ offset, length }: HostRange): Promise<void> {
    const inside = Math.min(length, this.#export.size - offset);
    if (inside > 0) await this.#export.writeZeroes(offset, inside);
  }

  async setLength(): Promise<void> {
    throw new StorageError('STORAGE_UNSUPPORTED', `${this.label}: the length of an export stays`, {
      file: this.label,
    });
  }

  async flush(): Promise<void> {
    await this.#export.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#release();
  }
}
