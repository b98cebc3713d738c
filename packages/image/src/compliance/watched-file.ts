import { type FileRun, openStorage, type Storage, type StorageDriver } from '@downfold/storage';
import type { ByteLength, HostOffset, HostRange } from '@downfold/units';

/** A change of a file's bytes. */
export type FileChange =
  | { readonly do: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly do: 'zero'; readonly offset: number; readonly length: number }
  | { readonly do: 'length'; readonly length: number };

/** A change, or a flush that made durable what stood before entry `covers`. */
export type FileEvent = FileChange | { readonly do: 'flush'; readonly covers: number };

/** What an image does to its file, whoever opens it. */
export interface FileWatch {
  /** Operations that change bytes, counted also when the bytes stay the same. */
  changes: number;
  /** Every change and flush in order, since it was made an array. */
  log: FileEvent[] | null;
}

/** `inner`, observed. Closing it closes `inner`. */
export function watchedStorage(inner: Storage, watch: FileWatch): Storage {
  return openStorage(new WatchedFile(inner, watch));
}

class WatchedFile implements StorageDriver {
  readonly #inner: Storage;
  readonly #watch: FileWatch;

  constructor(inner: Storage, watch: FileWatch) {
    this.#inner = inner;
    this.#watch = watch;
  }

  get label(): string {
    return this.#inner.label;
  }
  get writable(): boolean {
    return this.#inner.writable;
  }
  get supports(): Storage['supports'] {
    return this.#inner.supports;
  }
  get identity(): Storage['identity'] {
    return this.#inner.identity;
  }
  get descriptor(): null {
    return null;
  }

  length(): Promise<ByteLength> {
    return this.#inner.length();
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    await this.#inner.read(offset, target);
    return target.length;
  }

  runAt(offset: HostOffset): Promise<FileRun> {
    return this.#inner.runAt(offset);
  }

  async write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    this.#watch.changes++;
    const bytes = this.#watch.log === null ? null : source.slice();
    await this.#inner.write(offset, source, { what });
    if (bytes !== null) this.#watch.log?.push({ do: 'write', offset, bytes });
  }

  async writeZeroes(range: HostRange, what: string): Promise<void> {
    this.#watch.changes++;
    await this.#inner.writeZeroes(range, { what });
    this.#watch.log?.push({ do: 'zero', offset: range.offset, length: range.length });
  }

  /** None: `openStorage` then copies by reading and writing, which is observed. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  async discard(range: HostRange): Promise<void> {
    this.#watch.changes++;
    const inside = Math.min(range.length, (await this.#inner.length()) - range.offset);
    await this.#inner.discard(range);
    if (inside > 0) this.#watch.log?.push({ do: 'zero', offset: range.offset, length: inside });
  }

  async setLength(length: ByteLength): Promise<void> {
    this.#watch.changes++;
    await this.#inner.setLength(length);
    this.#watch.log?.push({ do: 'length', length });
  }

  async flush(barrier: string): Promise<void> {
    const covers = this.#watch.log?.length ?? 0;
    await this.#inner.flush(barrier);
    this.#watch.log?.push({ do: 'flush', covers });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#inner[Symbol.asyncDispose]() as Promise<void>;
  }
}
