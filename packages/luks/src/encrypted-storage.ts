import {
  bytesTo,
  type FileRun,
  openStorage,
  type Storage,
  type StorageDriver,
  type StorageSupport,
} from '@downfold/storage';
import {
  alignDown,
  alignUp,
  type ByteLength,
  byteLength,
  type HostOffset,
  type HostRange,
  hostOffset,
  LARGEST_OFFSET,
  rangeEnd,
} from '@downfold/units';
import { unsupported } from './errors.ts';
import type { SectorCipher } from './sector-cipher.ts';
import { SECTOR_BYTES } from './structures.ts';

/** Bytes encrypted or decrypted at a time, between which others have their turn. */
const PIECE_BYTES = 1 << 20;

/** What encrypts and decrypts whole sectors: a `SectorCipher`, or what throws where there is no key. */
export type SectorCrypt = Pick<SectorCipher, 'encrypt' | 'decrypt'>;

/**
 * What a file shows to whoever has the key: reads decrypt, writes encrypt, at any byte. Sectors are numbered from byte `start` of the file on, which is
 * byte 0 here. What nobody wrote, and what lies past the end, is noise. The file stays the caller's; flushing and closing this are not closing it.
 *
 * Nothing is copied from file to file beneath it: what other files copy from it is read, decrypted, and what it takes from others is encrypted.
 */
export function encryptedStorage(storage: Storage, cipher: SectorCrypt, start = 0): Storage {
  return openStorage(new EncryptedDriver(storage, cipher, start));
}

class EncryptedDriver implements StorageDriver {
  readonly #storage: Storage;
  readonly #cipher: SectorCrypt;
  readonly #start: number;
  /** End of the queue of writes that cut sectors: they read them first, and two may cut the same one. */
  #cuts: Promise<unknown> = Promise.resolve();
  /** The file cannot give host space back, nor grow, and then read as zeros here. */
  readonly supports: StorageSupport = { discard: false, resize: false };
  /** What the file holds is not what is read here. */
  readonly descriptor = null;

  constructor(storage: Storage, cipher: SectorCrypt, start: number) {
    this.#storage = storage;
    this.#cipher = cipher;
    this.#start = start;
  }

  get label(): string {
    return this.#storage.label;
  }
  get writable(): boolean {
    return this.#storage.writable;
  }
  get identity(): StorageDriver['identity'] {
    return this.#storage.identity;
  }

  async length(): Promise<ByteLength> {
    const bytes = alignUp(await this.#storage.length(), SECTOR_BYTES) - this.#start;
    return byteLength(Math.max(0, bytes));
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    const end = offset + target.length;
    for (let at: number = offset; at < end; ) {
      const stop = Math.min(end, alignDown(at, SECTOR_BYTES) + PIECE_BYTES);
      await this.#readPiece(at, target.subarray(at - offset, stop - offset));
      at = stop;
    }
    return target.length;
  }

  /** A hole is noise, too. */
  async runAt(offset: HostOffset): Promise<FileRun> {
    return bytesTo(LARGEST_OFFSET, offset);
  }

  async write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    const [from, to] = [offset, offset + source.length];
    if (from % SECTOR_BYTES === 0 && to % SECTOR_BYTES === 0)
      return this.#writeSectors(from, source, what);
    const turn = this.#cuts.then(() => this.#writeCut(from, source, what));
    // whoever comes next does not care how it ended
    this.#cuts = turn.catch(() => undefined);
    return turn;
  }

  async writeZeroes(range: HostRange, what: string): Promise<void> {
    const zeros = new Uint8Array(Math.min(PIECE_BYTES, range.length));
    const end = rangeEnd(range);
    for (let at: number = range.offset; at < end; ) {
      const stop = Math.min(end, alignDown(at, SECTOR_BYTES) + PIECE_BYTES);
      await this.write(hostOffset(at), zeros.subarray(0, stop - at), what);
      at = stop;
    }
  }

  /** It cannot do it itself: bytes must pass through the key. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  async discard(): Promise<void> {
    throw unsupported(this.label, 'discarding');
  }

  async setLength(): Promise<void> {
    throw unsupported(this.label, 'a length that changes');
  }

  flush(barrier: string): Promise<void> {
    return this.#storage.flush(barrier);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #readPiece(at: number, target: Uint8Array): Promise<void> {
    const from = alignDown(at, SECTOR_BYTES);
    const length = alignUp(at + target.length, SECTOR_BYTES) - from;
    const whole = length === target.length ? target : new Uint8Array(length);
    await this.#storage.read(hostOffset(this.#start + from), whole);
    this.#cipher.decrypt(from / SECTOR_BYTES, whole, whole);
    if (whole !== target) target.set(whole.subarray(at - from, at - from + target.length));
  }

  /** Writes bytes that cut sectors: the rest of those stays what it was. */
  async #writeCut(at: number, source: Uint8Array, what: string): Promise<void> {
    const from = alignDown(at, SECTOR_BYTES);
    const to = alignUp(at + source.length, SECTOR_BYTES);
    const whole = new Uint8Array(to - from);
    const last = to - SECTOR_BYTES;
    if (at > from) await this.#readPiece(from, whole.subarray(0, SECTOR_BYTES));
    if (at + source.length < to && (last > from || at === from))
      await this.#readPiece(last, whole.subarray(last - from));
    whole.set(source, at - from);
    await this.#writeSectors(from, whole, what);
  }

  async #writeSectors(offset: number, source: Uint8Array, what: string): Promise<void> {
    for (let done = 0; done < source.length; done += PIECE_BYTES) {
      const part = source.subarray(done, done + PIECE_BYTES);
      const sealed = new Uint8Array(part.length);
      this.#cipher.encrypt((offset + done) / SECTOR_BYTES, part, sealed);
      await this.#storage.write(hostOffset(this.#start + offset + done), sealed, { what });
    }
  }
}
