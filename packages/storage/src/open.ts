import {
  type ByteLength,
  byteLength,
  type HostOffset,
  type HostRange,
  hostOffset,
  LARGEST_OFFSET,
} from '@downfold/units';
import type { BackendDriver, StorageBackend } from './backend.ts';
import { StorageError, type StorageErrorCode } from './errors.ts';
import type { OperationOptions, Storage, StorageDriver, WriteOptions } from './storage.ts';

/** Bytes of the buffer that copies between files whose backends cannot do it themselves. */
const COPY_BUFFER_BYTES = 1 << 20;

const drivers = new WeakMap<Storage, StorageDriver>();

/** Wraps a driver: checks ranges and state, fills reads past the end with zeros, makes a failed flush final. */
export function openStorage(driver: StorageDriver): Storage {
  const storage = new OpenStorage(driver);
  drivers.set(storage, driver);
  return storage;
}

/** Wraps a backend driver so that the files it opens are wrapped too. */
export function openBackend(driver: BackendDriver): StorageBackend {
  return {
    name: driver.name,
    open: async (path, mode) => openStorage(await driver.open(path, mode)),
    create: async (path, options) => openStorage(await driver.create(path, options)),
    remove: (path) => driver.remove(path),
    rename: (from, to) => driver.rename(from, to),
    flushDirectory: (path, barrier) => driver.flushDirectory(path, barrier),
    facts: (path) => driver.facts(path),
    list: (directory) => driver.list(directory),
    realPath: (path) => driver.realPath(path),
  };
}

class OpenStorage implements Storage {
  readonly #driver: StorageDriver;
  #closed = false;
  #flushFailure: unknown;

  constructor(driver: StorageDriver) {
    this.#driver = driver;
  }

  get label(): string {
    return this.#driver.label;
  }
  get writable(): boolean {
    return this.#driver.writable;
  }
  get supports(): StorageDriver['supports'] {
    return this.#driver.supports;
  }
  get identity(): StorageDriver['identity'] {
    return this.#driver.identity;
  }

  async length(): Promise<ByteLength> {
    this.#assertOpen();
    return this.#driver.length();
  }

  async read(offset: HostOffset, target: Uint8Array, options?: OperationOptions): Promise<void> {
    this.#assertOpen();
    this.#assertRange(offset, target.length);
    options?.signal?.throwIfAborted();
    const filled = await this.#driver.read(offset, target);
    if (filled < target.length) target.fill(0, filled);
  }

  async write(offset: HostOffset, source: Uint8Array, options?: WriteOptions): Promise<void> {
    this.#assertWritable(offset, source.length);
    options?.signal?.throwIfAborted();
    if (source.length > 0) await this.#driver.write(offset, source, options?.what ?? 'data');
  }

  async writeZeroes(range: HostRange, options?: WriteOptions): Promise<void> {
    this.#assertWritable(range.offset, range.length);
    options?.signal?.throwIfAborted();
    if (range.length > 0) await this.#driver.writeZeroes(range, options?.what ?? 'data');
  }

  async copyFrom(
    source: Storage,
    from: HostOffset,
    to: HostOffset,
    length: ByteLength,
    options?: WriteOptions,
  ): Promise<void> {
    this.#assertWritable(to, length);
    this.#assertRange(from, length);
    const what = options?.what ?? 'data';
    const other = drivers.get(source);
    let done = 0;
    let direct = other !== undefined;
    let buffer: Uint8Array | undefined;
    while (done < length) {
      options?.signal?.throwIfAborted();
      const [readAt, writeAt] = [hostOffset(from + done), hostOffset(to + done)];
      if (direct && other !== undefined) {
        const copied = await this.#driver.copyFrom(
          other,
          readAt,
          writeAt,
          byteLength(length - done),
          what,
        );
        done += copied;
        direct = copied > 0;
        continue;
      }
      buffer ??= new Uint8Array(Math.min(COPY_BUFFER_BYTES, length - done));
      const piece = buffer.subarray(0, Math.min(buffer.length, length - done));
      await source.read(readAt, piece);
      await this.#driver.write(writeAt, piece, what);
      done += piece.length;
    }
  }

  async discard(range: HostRange, options?: OperationOptions): Promise<void> {
    this.#assertWritable(range.offset, range.length);
    this.#assertSupported('discard');
    options?.signal?.throwIfAborted();
    if (range.length > 0) await this.#driver.discard(range);
  }

  async setLength(length: ByteLength, options?: OperationOptions): Promise<void> {
    this.#assertWritable(hostOffset(0), length);
    this.#assertSupported('resize');
    options?.signal?.throwIfAborted();
    await this.#driver.setLength(length);
  }

  async flush(barrier: string): Promise<void> {
    this.#assertWritable(hostOffset(0), 0);
    try {
      await this.#driver.flush(barrier);
    } catch (cause) {
      this.#flushFailure ??= cause;
      throw this.#error(
        'STORAGE_FLUSH_FAILED',
        `flush (${barrier}) failed; nothing written since the last good flush can be relied on`,
        { barrier },
        cause,
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#driver[Symbol.asyncDispose]();
  }

  #assertOpen(): void {
    if (this.#closed) throw this.#error('STORAGE_CLOSED', 'is closed');
  }

  #assertWritable(offset: HostOffset, length: number): void {
    this.#assertOpen();
    if (!this.#driver.writable)
      throw this.#error('STORAGE_READ_ONLY', 'was opened for reading only');
    if (this.#flushFailure !== undefined)
      throw this.#error(
        'STORAGE_FLUSH_FAILED',
        'an earlier flush failed; close it and check it before it is used again',
        {},
        this.#flushFailure,
      );
    this.#assertRange(offset, length);
  }

  #assertRange(offset: number, length: number): void {
    if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= LARGEST_OFFSET) return;
    throw this.#error('STORAGE_RANGE', `${length} bytes at ${offset} cannot be addressed`, {
      offset,
      length,
    });
  }

  #assertSupported(ability: keyof StorageDriver['supports']): void {
    if (!this.#driver.supports[ability])
      throw this.#error('STORAGE_UNSUPPORTED', `cannot ${ability}`, { ability });
  }

  #error(
    code: StorageErrorCode,
    problem: string,
    details: Record<string, string | number> = {},
    cause?: unknown,
  ): StorageError {
    return new StorageError(
      code,
      `${this.label}: ${problem}`,
      { file: this.label, ...details },
      cause,
    );
  }
}
