import fs from 'node:fs';
import {
  bytesTo,
  type CopyPiece,
  type FileIdentity,
  type FileRun,
  NOTHING_MORE,
  type StorageDriver,
  StorageError,
  type StorageSupport,
} from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type HostOffset,
  type HostRange,
  hostOffset,
} from '@downfold/units';
import { type Calls, wasInterrupted } from './calls.ts';
import { calling, storageError } from './errno.ts';
import { Gathered, PIECE_BYTES } from './gathered.ts';
import type { Descriptor } from './open-file.ts';
import { Pace } from './pace.ts';
import { BLOCK_BYTES, refusalOf } from './sharing.ts';

/** Reads up to this many bytes are done at once: a thread pool hop costs more than the copy from the page cache. */
const SMALL_READ_BYTES = 64 << 10;
/** After so many bytes of copies or zeros the event loop turns. */
const TURN_BYTES = 4 << 20;
/** After so many bytes written the system is asked to write them to the disk already: the flush that waits for them finds less to do. */
const WRITE_BEHIND_BYTES = 16 << 20;
/**
 * Bytes of one write: new pages of a file are of up to this size then. Larger ones are taken from memory that nobody used for long, which a virtual
 * machine may have to get back from its host first: docs/performance.md.
 */
const WRITE_BYTES = 256 << 10;
/** Most bytes of one read: Node takes lengths of 31 bits, Linux moves 2 GiB minus a page. */
const CALL_BYTES = 1 << 30;

/** Fewer zeros are written: that takes no longer, and leaves blocks that are written as they are. */
const ZERO_RANGE_BYTES = 256 << 10;

/** Holes from this length on are punched off the main thread: 1 MiB of pages in memory takes 0.25 ms. */
const LONG_HOLE_BYTES = 4 << 20;

/** What fallocate says on file systems that cannot punch holes. */
const HOLES_UNKNOWN: ReadonlySet<string> = new Set(['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS']);

/** What lseek says on file systems that cannot tell data from holes. */
const SEEK_UNKNOWN: ReadonlySet<string> = new Set(['EINVAL', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS']);

/** What an open file is made of. */
export interface OpenFile {
  /** The driver's from then on: it closes it. */
  readonly descriptor: Descriptor;
  readonly label: string;
  readonly writable: boolean;
  readonly identity: FileIdentity;
  /** Bytes of a block device; null for a regular file, which is asked each time. */
  readonly deviceLength: number | null;
}

/** A regular file or block device behind a file descriptor. */
export class FileDriver implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport;
  readonly identity: FileIdentity;
  readonly #file: OpenFile;
  readonly #calls: Calls;
  /** Bytes moved since the event loop last turned. */
  #unturned = 0;
  /** Bytes written since the system was last asked to write them to the disk. */
  #unflushed = 0;
  /** The write-behind under way, one at a time; null: none. Never rejects. */
  #behind: Promise<void> | null = null;
  /** What a write-behind failed with. The system says it once: the next flush has to say it. */
  #behindFailure: { readonly cause: unknown } | null = null;

  /** Whether the file system makes zeros by itself, as far as is known. */
  #zeroes = true;
  /** How fast copies read this file. */
  readonly #pace: Pace = new Pace();
  /** Sources of which it is known that blocks cannot be shared with them. */
  readonly #unshared: WeakSet<FileDriver> = new WeakSet();

  constructor(file: OpenFile, calls: Calls) {
    this.#file = file;
    this.#calls = calls;
    this.label = file.label;
    this.writable = file.writable;
    this.identity = file.identity;
    const regular = file.deviceLength === null;
    this.supports = { discard: regular && calls.punchHole !== null, resize: regular };
  }

  get descriptor(): number {
    return this.#fd;
  }

  get #fd(): number {
    return this.#file.descriptor.fd;
  }

  async length(): Promise<ByteLength> {
    if (this.#file.deviceLength !== null) return byteLength(this.#file.deviceLength);
    return byteLength(
      (await calling(this.label, 'fstat', async () => fs.fstatSync(this.#fd))).size,
    );
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    let done = 0;
    while (done < target.length) {
      const part = target.subarray(done, done + CALL_BYTES);
      const small = part.length <= SMALL_READ_BYTES;
      const count = small
        ? this.#readSome(offset + done, part)
        : await this.#readOffThread(offset + done, part);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  /** So that the disk has more than one request to do. */
  willRead(offset: HostOffset, length: number): void {
    if (this.#pace.isSlow) this.#calls.willRead?.(this.#fd, offset, length);
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    return this.#runAt(offset, await this.length());
  }

  async write(offset: HostOffset, source: Uint8Array): Promise<void> {
    this.#writeAll(offset, source);
  }

  /**
   * Zeros up to the present end are written, but where there is a hole, or the file system makes them without. Past it one byte makes the rest a hole, which is punched into its
   * block, too. It is not made by setting the length: that would cut off what another write, in flight beside this one, put further on.
   */
  async writeZeroes(range: HostRange): Promise<void> {
    const end = range.offset + range.length;
    const length = await this.length();
    if (end > length) {
      this.#writeAll(end - 1, new Uint8Array(1));
      const from = Math.max(range.offset, length);
      await this.#punch(from, end - from);
    }
    const written = Math.min(end, length);
    const zeros = new Uint8Array(Math.min(PIECE_BYTES, Math.max(0, written - range.offset)));
    for (let at: number = range.offset; at < written; ) {
      const run = this.#runAt(at, length);
      const stop = Math.min(written, run.end);
      if (!run.hole && this.#zeroRange(at, stop - at)) at = stop;
      for (; !run.hole && at < stop; at = Math.min(stop, at + zeros.length)) {
        this.#writeAll(at, zeros.subarray(0, stop - at));
        await this.#moved(zeros.length);
      }
      at = stop;
    }
  }

  /**
   * Pieces that follow one another in the file are written by one call. Where the file system can, whole blocks are not copied
   * but shared.
   */
  async copyFrom(pieces: readonly CopyPiece<StorageDriver>[]): Promise<number> {
    const first = pieces[0]?.source;
    // others get to say what they will read before this one waits for the disk
    if (first instanceof FileDriver && first.#pace.isSlow) await turn();
    const gathered = new Gathered((offset, bytes) => this.#writeAll(offset, bytes));
    let done = 0;
    for (const piece of pieces) {
      const { source, length } = piece;
      if (!(source instanceof FileDriver) || done >= TURN_BYTES) break;
      const most = Math.min(length, TURN_BYTES - done);
      for (let at = 0; at < most; ) {
        const shared = this.#share(source, piece.from + at, piece.to + at, most - at);
        at += shared > 0 ? shared : this.#gather(gathered, source, piece, at, most);
      }
      done += most;
    }
    gathered.write();
    await this.#moved(done);
    return done;
  }

  /** Reads some of bytes [at, end) of a piece into the buffer; past the end of the source zeros, as a read gives them. */
  #gather(
    gathered: Gathered,
    source: FileDriver,
    piece: CopyPiece<unknown>,
    at: number,
    end: number,
  ): number {
    const target = gathered.room(piece.to + at, end - at);
    const started = this.#calls.now();
    const count = source.#readSome(piece.from + at, target);
    source.#pace.note(count, this.#calls.now() - started);
    if (count === 0) target.fill(0);
    const filled = count === 0 ? target.length : count;
    gathered.add(filled);
    return filled;
  }

  #mayShare(source: FileDriver): boolean {
    return this.#calls.shareBlocks !== null && !this.#unshared.has(source);
  }

  /** Bytes from the start of a range that share blocks with the source from now on; 0: they have to be copied. */
  #share(source: FileDriver, from: number, to: number, length: number): number {
    const { shareBlocks } = this.#calls;
    const whole = length - (length % BLOCK_BYTES);
    if (shareBlocks === null || whole === 0 || from % BLOCK_BYTES !== 0 || to % BLOCK_BYTES !== 0)
      return 0;
    if (!this.#mayShare(source)) return 0;
    try {
      this.#call('ioctl', to, () => {
        shareBlocks(source.#fd, from, this.#fd, to, whole);
        return 0;
      });
      return whole;
    } catch (cause) {
      const errno = cause instanceof StorageError ? String(cause.details['errno']) : '';
      const refusal = refusalOf(errno);
      if (refusal === null) throw cause;
      if (refusal === 'never') this.#unshared.add(source);
      return 0;
    }
  }

  /** On a file system that has no holes, zeros are written. */
  async discard(range: HostRange): Promise<void> {
    if (this.#calls.punchHole === null)
      throw new StorageError('STORAGE_UNSUPPORTED', `${this.label}: cannot punch holes here`, {
        file: this.label,
      });
    if (await this.#punch(range.offset, range.length)) return;
    const length = Math.min(range.length, (await this.length()) - range.offset);
    if (length > 0) await this.writeZeroes({ ...range, length: byteLength(length) });
  }

  async setLength(length: ByteLength): Promise<void> {
    await calling(this.label, 'ftruncate', () => this.#calls.ftruncate(this.#fd, length));
  }

  async flush(): Promise<void> {
    this.#unflushed = 0;
    await calling(this.label, 'fdatasync', () => this.#calls.fdatasync(this.#fd));
    await this.#behind;
    if (this.#behindFailure !== null)
      throw storageError(this.#behindFailure.cause, this.label, 'fdatasync');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#behind;
    await this.#file.descriptor[Symbol.asyncDispose]();
  }

  /** Makes a hole; false: this file system has none. */
  async #punch(offset: number, length: number): Promise<boolean> {
    const { punchHole, punchOffThread } = this.#calls;
    const isLong = length >= LONG_HOLE_BYTES;
    if (isLong && (await punchOffThread?.(this.#fd, offset, length)) === true) return true;
    try {
      this.#call('fallocate', offset, () => {
        punchHole?.(this.#fd, offset, length);
        return 0;
      });
    } catch (cause) {
      if (cause instanceof StorageError && HOLES_UNKNOWN.has(String(cause.details['errno'])))
        return false;
      throw cause;
    }
    return punchHole !== null;
  }

  /** Has the file system make zeros of data; false: they are to be written, which says what stands in the way. */
  #zeroRange(offset: number, length: number): boolean {
    const { zeroRange } = this.#calls;
    if (zeroRange === null || length < ZERO_RANGE_BYTES || !this.#zeroes) return false;
    try {
      zeroRange(this.#fd, offset, length);
      return true;
    } catch (cause) {
      if (!wasInterrupted(cause)) this.#zeroes = false;
      return false;
    }
  }

  /** As `runAt`, of a file of so many bytes. */
  #runAt(offset: number, length: number): FileRun {
    if (this.#file.deviceLength !== null || offset >= length) return bytesTo(length, offset);
    const data = this.#seek(offset, 'data');
    if (data === null) return NOTHING_MORE;
    if (data > offset) return { hole: true, end: hostOffset(data) };
    return { hole: false, end: hostOffset(this.#seek(offset, 'hole') ?? length) };
  }

  /** Where holes are not known, what was asked about is data up to the end. */
  #seek(offset: number, what: 'data' | 'hole'): number | null {
    const unknown = what === 'data' ? offset : null;
    const { seek } = this.#calls;
    if (seek === null) return unknown;
    try {
      return seek(this.#fd, offset, what);
    } catch (cause) {
      if (SEEK_UNKNOWN.has(String((cause as NodeJS.ErrnoException).code))) return unknown;
      throw storageError(cause, this.label, 'lseek', offset);
    }
  }

  #readSome(offset: number, target: Uint8Array): number {
    return this.#call('pread', offset, () => this.#calls.readSync(this.#fd, target, offset));
  }

  async #readOffThread(offset: number, target: Uint8Array): Promise<number> {
    for (;;) {
      try {
        return await this.#calls.read(this.#fd, target, offset);
      } catch (cause) {
        if (!wasInterrupted(cause)) throw storageError(cause, this.label, 'pread', offset);
      }
    }
  }

  #writeAll(offset: number, source: Uint8Array): void {
    for (let done = 0; done < source.length; ) {
      const part = source.subarray(done, done + WRITE_BYTES);
      const at = offset + done;
      const count = this.#call('pwrite', at, () => this.#calls.writeSync(this.#fd, part, at));
      // must not happen; without an error to report this would never end
      if (count === 0)
        throw storageError(new Error('wrote no bytes'), this.label, 'pwrite', offset + done);
      done += count;
    }
    this.#unflushed += source.length;
    if (this.#unflushed >= WRITE_BEHIND_BYTES) this.#behind ??= this.#writeBehind();
  }

  async #writeBehind(): Promise<void> {
    this.#unflushed = 0;
    try {
      await this.#calls.writeOut(this.#fd);
    } catch (cause) {
      this.#behindFailure ??= { cause };
    }
    this.#behind = null;
  }

  /** Lets the event loop turn now and then while bytes are moved on its thread. */
  async #moved(bytes: number): Promise<void> {
    this.#unturned += bytes;
    if (this.#unturned < TURN_BYTES) return;
    this.#unturned = 0;
    await turn();
  }

  #call(name: string, offset: number, call: () => number): number {
    for (;;) {
      try {
        return call();
      } catch (cause) {
        if (!wasInterrupted(cause)) throw storageError(cause, this.label, name, offset);
      }
    }
  }
}

/** Lets the event loop turn: timers, sockets and signals get their chance. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
