import {
  type ByteLength,
  type HostOffset,
  type HostRange,
  hostOffset,
  LARGEST_OFFSET,
} from '@downfold/units';
import type { BackendDriver, StorageBackend } from './backend.ts';
import { StorageError, type StorageErrorCode } from './errors.ts';
import { bytesOfPieces, piecesAfter } from './pieces.ts';
import type {
  CopyPiece,
  FileRun,
  OperationOptions,
  Storage,
  StorageDriver,
  WriteOptions,
} from './storage.ts';

/** Bytes of the buffer that copies between files whose backends cannot do it themselves. */
const COPY_BUFFER_BYTES = 1 << 20;

/** Wraps a driver: checks ranges and state, fills reads past the end with zeros, makes a failed flush final. */
export function openStorage(driver: StorageDriver): Storage {
  return new OpenStorage(driver);
}

/** Has a file dispose of something once it is closed itself: of its lock, say. @throws TypeError for a file that `openStorage` did not make */
export function closesWith(storage: Storage, held: AsyncDisposable): void {
  OpenStorage.hold(storage, held);
}

/** Wraps a backend driver so that the files it opens are wrapped too. */
export function openBackend(driver: BackendDriver): StorageBackend {
  return {
    name: driver.name,
    open: async (path, mode) => openStorage(await driver.open(path, mode)),
    create: async (path, options) => openStorage(await driver.create(path, options)),
    remove: (path) => driver.remove(path),
    rename: (from, to) => driver.rename(from, to),
    flushDirectory: async (path, barrier) => {
      try {
        await driver.flushDirectory(path, barrier);
      } catch (cause) {
        throw failedFlushOf(path, barrier, cause);
      }
    },
    facts: (path) => driver.facts(path),
    list: (directory) => driver.list(directory),
    realPath: (path) => driver.realPath(path),
    sharesBlocks: (from, to) => driver.sharesBlocks(from, to),
    lock: (path, request) => driver.lock(path, request),
  };
}

/** A directory that was not flushed is as a file that was not: names made since may be lost although they are seen, and the system says so once. */
function failedFlushOf(path: string, barrier: string, cause: unknown): unknown {
  const failed =
    cause instanceof StorageError &&
    (cause.code === 'STORAGE_IO' || cause.code === 'STORAGE_NO_SPACE');
  if (!failed) return cause;
  return new StorageError(
    'STORAGE_FLUSH_FAILED',
    `${path}: flush of the directory (${barrier}) failed; names made or removed since the last good one cannot be relied on`,
    { file: path, barrier },
    cause,
  );
}

class OpenStorage implements Storage {
  readonly #driver: StorageDriver;
  #closing: Promise<void> | undefined;
  #flushFailure: unknown;
  /** Calls of the driver that have not settled. */
  #underWay = 0;
  #lastSettled: (() => void) | undefined;
  /** Disposed of when the file is closed. */
  readonly #held: AsyncDisposable[] = [];

  static hold(storage: Storage, held: AsyncDisposable): void {
    if (!(storage instanceof OpenStorage))
      throw new TypeError(`${storage.label}: is no file of openStorage`);
    storage.#held.push(held);
  }

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
  get descriptor(): number | null {
    return this.#driver.descriptor;
  }

  async length(): Promise<ByteLength> {
    this.#assertOpen();
    return await this.#call(this.#driver.length());
  }

  async read(offset: HostOffset, target: Uint8Array, options?: OperationOptions): Promise<void> {
    this.#assertOpen();
    this.#assertRange(offset, target.length);
    options?.signal?.throwIfAborted();
    const filled = await this.#call(this.#driver.read(offset, target));
    if (filled < target.length) target.fill(0, filled);
  }

  willRead(offset: HostOffset, length: number): void {
    if (this.#closing === undefined) this.#driver.willRead?.(offset, length);
  }

  async runAt(offset: HostOffset, options?: OperationOptions): Promise<FileRun> {
    this.#assertOpen();
    this.#assertRange(offset, 0);
    options?.signal?.throwIfAborted();
    return await this.#call(this.#driver.runAt(offset));
  }

  async write(offset: HostOffset, source: Uint8Array, options?: WriteOptions): Promise<void> {
    this.#assertWritable(offset, source.length);
    options?.signal?.throwIfAborted();
    if (source.length > 0)
      await this.#call(this.#driver.write(offset, source, options?.what ?? 'data'));
  }

  async writeZeroes(range: HostRange, options?: WriteOptions): Promise<void> {
    this.#assertWritable(range.offset, range.length);
    options?.signal?.throwIfAborted();
    if (range.length > 0)
      await this.#call(this.#driver.writeZeroes(range, options?.what ?? 'data'));
  }

  async copyFrom(pieces: readonly CopyPiece[], options?: WriteOptions): Promise<void> {
    this.#assertWritable(hostOffset(0), 0);
    for (const { source, from, to, length } of pieces) {
      this.#assertRange(to, length);
      this.#assertRange(from, length);
      this.#assertApart(source, from, to, length);
    }
    const what = options?.what ?? 'data';
    let buffer: Uint8Array | undefined;
    // who was asked once, and cannot, is not asked for each piece
    const indirect = new Set<Storage>();
    for (let left = piecesAfter(pieces, 0); left.length > 0; ) {
      // each time anew: the files may be closed and a flush may fail while the copy goes on
      this.#assertWritable(hostOffset(0), 0);
      options?.signal?.throwIfAborted();
      const { source, from, to, length } = left[0] as CopyPiece;
      const direct = indirect.has(source) ? 0 : await this.#copyDirect(left, what);
      if (direct > 0) {
        left = piecesAfter(left, direct);
        continue;
      }
      indirect.add(source);
      buffer ??= new Uint8Array(Math.min(COPY_BUFFER_BYTES, bytesOfPieces(left)));
      const part = buffer.subarray(0, length);
      await source.read(from, part);
      await this.write(to, part, { what });
      left = piecesAfter(left, part.length);
    }
  }

  async discard(range: HostRange, options?: OperationOptions): Promise<void> {
    this.#assertWritable(range.offset, range.length);
    this.#assertSupported('discard');
    options?.signal?.throwIfAborted();
    if (range.length > 0) await this.#call(this.#driver.discard(range));
  }

  async setLength(length: ByteLength, options?: OperationOptions): Promise<void> {
    this.#assertWritable(hostOffset(0), length);
    this.#assertSupported('resize');
    options?.signal?.throwIfAborted();
    await this.#call(this.#driver.setLength(length));
  }

  async flush(barrier: string): Promise<void> {
    this.#assertWritable(hostOffset(0), 0);
    try {
      await this.#call(this.#driver.flush(barrier));
    } catch (cause) {
      this.#flushFailure ??= cause;
    }
    // also when another flush failed meanwhile: the system reports a lost write once, to whoever asks first
    if (this.#flushFailure !== undefined)
      throw this.#error(
        'STORAGE_FLUSH_FAILED',
        `flush (${barrier}) failed; nothing written since the last good flush can be relied on`,
        { barrier },
        this.#flushFailure,
      );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#underWay > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#lastSettled = resolve;
      await promise;
    }
    await using held = new AsyncDisposableStack();
    for (const one of this.#held) held.use(one);
    await this.#driver[Symbol.asyncDispose]();
  }

  /** Every call of the driver goes through here, so that closing waits for those under way. */
  async #call<T>(call: Promise<T>): Promise<T> {
    this.#underWay += 1;
    try {
      return await call;
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#lastSettled?.();
    }
  }

  /** Bytes from the start of `pieces` that the driver copied itself; 0 when it cannot. */
  async #copyDirect(pieces: readonly CopyPiece[], what: string): Promise<number> {
    const sources = new Set<OpenStorage>();
    const direct: CopyPiece<StorageDriver>[] = [];
    for (const { source, from, to, length } of pieces) {
      if (!(source instanceof OpenStorage)) break;
      sources.add(source);
      direct.push({ source: source.#driver, from, to, length });
    }
    if (direct.length === 0) return 0;
    for (const source of sources) source.#assertOpen();
    let call = this.#call(this.#driver.copyFrom(direct, what));
    for (const source of sources) call = source.#call(call);
    return await call;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw this.#error('STORAGE_CLOSED', 'is closed');
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
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    if (whole && offset >= 0 && length >= 0 && offset + length <= LARGEST_OFFSET) return;
    throw this.#error('STORAGE_RANGE', `${length} bytes at ${offset} cannot be addressed`, {
      offset,
      length,
    });
  }

  /** Copies go piece by piece, front to back: onto itself, a piece would be read after it was overwritten. */
  #assertApart(source: Storage, from: number, to: number, length: number): void {
    const [mine, other] = [this.identity, source.identity];
    if (mine.device !== other.device || mine.inode !== other.inode) return;
    if (Math.abs(from - to) >= length) return;
    throw this.#error(
      'STORAGE_RANGE',
      `cannot copy ${length} bytes from ${from} to ${to} of the same file: the ranges overlap`,
      { offset: to, length },
    );
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
