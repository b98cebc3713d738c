import { EXPORT_FLAG, type NbdClient } from '@downfold/nbd';
import { StorageError, type StorageErrorCode } from '@downfold/storage';
import { alignDown, alignUp } from '@downfold/units';
import { partsOf } from './blocks.ts';
import { calling } from './errors.ts';

/** Most bytes of a request that is widened to blocks, and of zeros that are sent: for those there is a buffer. */
const BUFFER_BYTES = 1 << 20;
/** Most bytes of one request for zeros: lengths have 32 bits, and a server may take long over them. */
const ZERO_BYTES = 1 << 30;
/** Time for the server's goodbye. */
const CLOSE_MS = 10_000;

/**
 * An export behind one connection, which all who have it open share. Requests keep to the server's block sizes: what is longer is
 * split, a read that is not aligned is widened, and of a write that is not, the blocks at its ends are read, changed and written,
 * one at a time.
 */
export class NbdExport {
  /** How errors name it. */
  readonly uri: string;
  /** Bytes. */
  readonly size: number;
  readonly discards: boolean;
  readonly #client: NbdClient;
  /** Bytes that offsets and lengths are multiples of. */
  readonly #block: number;
  /** Most bytes of one read or write. */
  readonly #most: number;
  /** As much of it as there is a buffer for. */
  readonly #buffered: number;
  /** Without flushes every change says that it is to be durable. */
  readonly #fua: boolean;
  /** The last change of a part of a block. Never rejects. */
  #patched: Promise<void> = Promise.resolve();
  /** Why no flush of it can be believed any more. */
  #flushFailure: unknown = null;

  constructor(client: NbdClient, uri: string) {
    this.#client = client;
    this.uri = uri;
    this.size = client.info.size;
    const { minimum, maximumPayload } = client.info.blockSize;
    this.#block = minimum;
    this.#most = alignDown(maximumPayload, minimum);
    this.#buffered = Math.min(this.#most, BUFFER_BYTES);
    this.#fua = !this.#can('flush');
    this.discards = this.#can('trim') && this.#can('writeZeroes');
  }

  /** Resolves once the connection is over, whoever ended it. */
  get gone(): Promise<void> {
    return this.#client.gone;
  }

  /** @throws StorageError when nothing can be written, or nothing that was written could be made durable */
  assertWritable(): void {
    if (this.#client.info.readOnly)
      throw this.#error('STORAGE_ACCESS', 'the server exports it for reading only');
    if (this.#fua && !this.#can('fua'))
      throw this.#error(
        'STORAGE_UNSUPPORTED',
        'its server can make no write durable (no flush, no FUA)',
      );
  }

  /** Reads until `target` is full or the export ends; resolves with the bytes read. */
  async read(offset: number, target: Uint8Array): Promise<number> {
    const count = Math.max(0, Math.min(target.length, this.size - offset));
    for (let done = 0; done < count; ) {
      const [at, left] = [offset + done, count - done];
      const whole = at % this.#block === 0 ? Math.min(alignDown(left, this.#block), this.#most) : 0;
      if (whole > 0) await this.#readBlocks(at, target.subarray(done, done + whole));
      done += whole > 0 ? whole : await this.#readWidened(at, target.subarray(done, count));
    }
    return count;
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#assertFits(offset, source.length);
    for (const part of partsOf(offset, source.length, this.#block)) {
      const start = part.offset - offset;
      const bytes = source.subarray(start, start + part.length);
      if (part.whole) await this.#writeBlocks(part.offset, bytes);
      else await this.#patch(part.offset, bytes);
    }
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#assertFits(offset, length);
    for (const part of partsOf(offset, length, this.#block)) {
      if (part.whole) await this.#zeroBlocks(part.offset, part.length);
      else await this.#patch(part.offset, new Uint8Array(part.length));
    }
  }

  /** A failure is final for all who have it open: what was written through one of them may be what is lost. */
  async flush(): Promise<void> {
    if (this.#fua) return;
    try {
      await this.#call('flush', null, () => this.#client.flush());
    } catch (cause) {
      this.#flushFailure ??= cause;
    }
    if (this.#flushFailure !== null) throw this.#flushFailure;
  }

  async close(): Promise<void> {
    await this.#client.close({ signal: AbortSignal.timeout(CLOSE_MS) });
  }

  async #call(name: string, offset: number | null, work: () => Promise<void>): Promise<void> {
    await calling(this.uri, name, offset, work);
  }

  #can(ability: keyof typeof EXPORT_FLAG): boolean {
    return (this.#client.info.flags & EXPORT_FLAG[ability]) !== 0;
  }

  /** Nothing is sent of what does not fit as a whole. */
  #assertFits(offset: number, length: number): void {
    if (offset + length <= this.size) return;
    const problem = `${length} bytes at ${offset} go past its end; an export stays as long as it is, here ${this.size} bytes`;
    throw this.#error('STORAGE_NO_SPACE', problem, { offset, length, size: this.size });
  }

  #error(
    code: StorageErrorCode,
    problem: string,
    details: Record<string, number> = {},
  ): StorageError {
    return new StorageError(code, `${this.uri}: ${problem}`, { file: this.uri, ...details });
  }

  async #readBlocks(offset: number, target: Uint8Array): Promise<void> {
    await this.#call('read', offset, () => this.#client.read(offset, target));
  }

  /** Reads the blocks around the start of `target`; resolves with the bytes that it got. */
  async #readWidened(offset: number, target: Uint8Array): Promise<number> {
    const lead = offset % this.#block;
    const blocks = new Uint8Array(
      Math.min(alignUp(lead + target.length, this.#block), this.#buffered),
    );
    await this.#readBlocks(offset - lead, blocks);
    const bytes = blocks.subarray(lead, lead + target.length);
    target.set(bytes);
    return bytes.length;
  }

  async #writeBlocks(offset: number, source: Uint8Array): Promise<void> {
    for (let done = 0; done < source.length; done += this.#most) {
      const piece = source.subarray(done, done + this.#most);
      await this.#call('write', offset + done, () =>
        this.#client.write(offset + done, piece, { fua: this.#fua }),
      );
    }
  }

  async #zeroBlocks(offset: number, length: number): Promise<void> {
    if (!this.#can('writeZeroes')) {
      const zeros = new Uint8Array(Math.min(length, this.#buffered));
      for (let done = 0; done < length; done += zeros.length)
        await this.#writeBlocks(offset + done, zeros.subarray(0, length - done));
      return;
    }
    for (let done = 0; done < length; done += ZERO_BYTES) {
      const piece = Math.min(length - done, ZERO_BYTES);
      await this.#call('write zeroes', offset + done, () =>
        this.#client.writeZeroes(offset + done, piece, { fua: this.#fua }),
      );
    }
  }

  /** Changes a part of one block. One at a time: two that meet in a block would each write back what the other one changed. */
  async #patch(offset: number, bytes: Uint8Array): Promise<void> {
    const patch = this.#patched.then(async () => {
      const lead = offset % this.#block;
      const block = new Uint8Array(this.#block);
      await this.#readBlocks(offset - lead, block);
      block.set(bytes, lead);
      await this.#writeBlocks(offset - lead, block);
    });
    this.#patched = patch.catch(() => {});
    await patch;
  }
}
