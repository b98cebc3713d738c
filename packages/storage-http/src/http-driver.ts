import {
  bytesTo,
  type FileIdentity,
  type FileRun,
  type StorageDriver,
  StorageError,
} from '@downfold/storage';
import { type ByteLength, byteLength, type HostOffset } from '@downfold/units';
import { ChunkCache } from './chunk-cache.ts';
import type { HttpClient } from './http-client.ts';
import { readRange, type Version } from './ranges.ts';

/** Shorter reads are served from chunks of this many bytes: that reads ahead, and joins neighbours into one request. */
const CHUNK_BYTES = 256 << 10;
/** Chunks that are kept for each open file: 8 MiB. */
const CHUNKS = 32;
/** Most bytes of one request. */
const REQUEST_BYTES = 8 << 20;

/** One version of a resource, for reading. Once it was replaced, nothing more is read of it. */
export class HttpDriver implements StorageDriver {
  readonly label: string;
  readonly writable = false;
  readonly supports = { discard: false, resize: false };
  readonly identity: FileIdentity;
  readonly descriptor = null;
  readonly version: Version;
  readonly #client: HttpClient;
  readonly #cache = new ChunkCache(CHUNKS, (chunk) => this.#chunk(chunk));
  #changed: StorageError | null = null;

  constructor(client: HttpClient, version: Version, label: string, identity: FileIdentity) {
    this.#client = client;
    this.version = version;
    this.label = label;
    this.identity = identity;
  }

  async length(): Promise<ByteLength> {
    return byteLength(this.version.length);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    this.#assertUnchanged();
    const count = Math.max(0, Math.min(target.length, this.version.length - offset));
    const wanted = target.subarray(0, count);
    if (count < CHUNK_BYTES) await this.#readCached(offset, wanted);
    else
      for (let done = 0; done < count; done += REQUEST_BYTES)
        await this.#fetch(offset + done, wanted.subarray(done, done + REQUEST_BYTES));
    this.#assertUnchanged();
    return count;
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    return bytesTo(this.version.length, offset);
  }

  async write(): Promise<void> {
    throw this.#unsupported('written');
  }
  async writeZeroes(): Promise<void> {
    throw this.#unsupported('written');
  }
  async copyFrom(): Promise<number> {
    throw this.#unsupported('written');
  }
  async discard(): Promise<void> {
    throw this.#unsupported('written');
  }
  async setLength(): Promise<void> {
    throw this.#unsupported('resized');
  }
  async flush(): Promise<void> {
    throw this.#unsupported('written');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cache.clear();
  }

  async #readCached(offset: number, target: Uint8Array): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const [chunk, start] = [
        Math.floor((offset + done) / CHUNK_BYTES),
        (offset + done) % CHUNK_BYTES,
      ];
      const bytes = (await this.#cache.get(chunk)).subarray(start, start + target.length - done);
      target.set(bytes, done);
      done += bytes.length;
    }
  }

  async #chunk(chunk: number): Promise<Uint8Array> {
    const offset = chunk * CHUNK_BYTES;
    const bytes = new Uint8Array(Math.min(CHUNK_BYTES, this.version.length - offset));
    await this.#fetch(offset, bytes);
    return bytes;
  }

  async #fetch(offset: number, target: Uint8Array): Promise<void> {
    try {
      await readRange(this.#client, this.version, target, { file: this.label, offset });
    } catch (cause) {
      if (cause instanceof StorageError && cause.code === 'STORAGE_CHANGED')
        this.#changed ??= cause;
      throw cause;
    }
  }

  /** What was read before is of another version than what is there now: no more is handed out. */
  #assertUnchanged(): void {
    if (this.#changed !== null) throw this.#changed;
  }

  #unsupported(done: string): StorageError {
    return new StorageError('STORAGE_UNSUPPORTED', `${this.label}: cannot be ${done} over HTTP`, {
      file: this.label,
    });
  }
}
