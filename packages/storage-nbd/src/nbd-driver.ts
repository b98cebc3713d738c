import { EXPORT_FLAG, type NbdClient } from '@downfold/nbd';
import {
  type FileIdentity,
  type StorageDriver,
  StorageError,
  type StorageSupport,
} from '@downfold/storage';
import {
  alignDown,
  alignUp,
  type ByteLength,
  byteLength,
  type HostOffset,
  type HostRange,
} from '@downfold/units';
import { partsOf } from './blocks.ts';
import { calling } from './errors.ts';

/** Most bytes of a request that is widened to blocks, and of zeros that are sent: for those there is a buffer. */
const BUFFER_BYTES = 1 << 20;
/** Most bytes of one request for zeros: lengths have 32 bits, and a server may take long over them. */
const ZERO_BYTES = 1 << 30;
/** Time for the server's goodbye. */
const CLOSE_MS = 10_000;

/** What a driver is told of its export. */
export interface OpenExport {
  readonly uri: string;
  readonly identity: FileIdentity;
  readonly writable: boolean;
}

/**
 * An export behind one connection. Requests keep to the server's block sizes: what is longer is split, a read that is not
 * aligned is widened, and of a write that is not, the blocks at its ends are read, changed and written, one at a time.
 */
export class NbdDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport;
  readonly identity: FileIdentity;
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

  constructor(client: NbdClient, { uri, identity, writable }: OpenExport) {
    this.#client = client;
    this.label = uri;
    this.identity = identity;
    this.writable = writable;
    const { minimum, maximumPayload } = client.info.blockSize;
    this.#block = minimum;
    this.#most = alignDown(maximumPayload, minimum);
    this.#buffered = Math.min(this.#most, BUFFER_BYTES);
    this.#fua = !this.#can('flush');
    this.supports = { discard: this.#can('trim') && this.#can('writeZeroes'), resize: false };
  }

  async length(): Promise<ByteLength> {
    return byteLength(this.#client.info.size);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    const count = Math.max(0, Math.min(target.length, this.#client.info.size - offset));
    for (let done = 0; done < count; ) {
      const [at, left] = [offset + done, count - done];
      const whole = at % this.#block === 0 ? Math.min(alignDown(left, this.#block), this.#most) : 0;
      if (whole > 0) await this.#readBlocks(at, target.subarray(done, done + whole));
      done += whole > 0 ? whole : await this.#readWidened(at, target.subarray(done, count));
    }
    return count;
  }

  async write(offset: HostOffset, source: Uint8Array): Promise<void> {
    this.#assertFits(offset, source.length);
    for (const part of partsOf(offset, source.length, this.#block)) {
      const start = part.offset - offset;
      const bytes = source.subarray(start, start + part.length);
      if (part.whole) await this.#writeBlocks(part.offset, bytes);
      else await this.#patch(part.offset, bytes);
    }
  }

  async writeZeroes({ offset, length }: HostRange): Promise<void> {
    this.#assertFits(offset, length);
    for (const part of partsOf(offset, length, this.#block)) {
      if (part.whole) await this.#zeroBlocks(part.offset, part.length);
      else await this.#patch(part.offset, new Uint8Array(part.length));
    }
  }

  /** Through the wrapper's buffer: servers do not copy. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  /** Zeros that may be holes: of what was trimmed, a server may show the old bytes. */
  async discard({ offset, length }: HostRange): Promise<void> {
    const inside = Math.min(length, this.#client.info.size - offset);
    if (inside > 0) await this.writeZeroes({ offset, length: byteLength(inside) });
  }

  async setLength(): Promise<void> {
    throw new StorageError('STORAGE_UNSUPPORTED', `${this.label}: the length of an export stays`, {
      file: this.label,
    });
  }

  async flush(): Promise<void> {
    if (!this.#fua) await calling(this.label, 'flush', null, () => this.#client.flush());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close({ signal: AbortSignal.timeout(CLOSE_MS) });
  }

  #can(ability: keyof typeof EXPORT_FLAG): boolean {
    return (this.#client.info.flags & EXPORT_FLAG[ability]) !== 0;
  }

  /** Nothing is sent of what does not fit as a whole. */
  #assertFits(offset: number, length: number): void {
    const { size } = this.#client.info;
    if (offset + length <= size) return;
    throw new StorageError(
      'STORAGE_NO_SPACE',
      `${this.label}: ${length} bytes at ${offset} go past its end; an export stays as long as it is, here ${size} bytes`,
      { file: this.label, offset, length, size },
    );
  }

  async #readBlocks(offset: number, target: Uint8Array): Promise<void> {
    await calling(this.label, 'read', offset, () => this.#client.read(offset, target));
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
      await calling(this.label, 'write', offset + done, () =>
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
      await calling(this.label, 'write zeroes', offset + done, () =>
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
