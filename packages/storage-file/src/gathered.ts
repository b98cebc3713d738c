/** One system call of a copy moves so many bytes at most: larger ones gain nothing. */
export const PIECE_BYTES: number = 1 << 20;

/**
 * A buffer that starts on a page: reads into one that does not can be 4 times slower, and big Buffers start 16 bytes
 * after a page. Resizable ArrayBuffers are page-aligned. Shared by all copies, which are synchronous.
 */
let pageAligned: Uint8Array | undefined;
const copyBuffer = (): Uint8Array =>
  (pageAligned ??= new Uint8Array(
    new ArrayBuffer(PIECE_BYTES, { maxByteLength: PIECE_BYTES }),
    0,
    PIECE_BYTES,
  ));

/** Bytes on their way to a file: what follows one another there is written by one call. To be used and written without a wait between. */
export class Gathered {
  readonly #buffer: Uint8Array = copyBuffer();
  readonly #write: (offset: number, bytes: Uint8Array) => void;
  /** Byte of the file that the buffer's first one goes to, and how many are there. */
  #start = 0;
  #filled = 0;

  constructor(write: (offset: number, bytes: Uint8Array) => void) {
    this.#write = write;
  }

  /** Where up to `most` bytes that go to byte `offset` of the file are to be put; `add` says how many were. */
  room(offset: number, most: number): Uint8Array {
    const follows = this.#filled > 0 && offset === this.#start + this.#filled;
    if (!follows || this.#filled === this.#buffer.length) {
      this.write();
      this.#start = offset;
    }
    return this.#buffer.subarray(this.#filled, this.#filled + most);
  }

  add(bytes: number): void {
    this.#filled += bytes;
  }

  /** Writes what is there. */
  write(): void {
    const bytes = this.#buffer.subarray(0, this.#filled);
    this.#filled = 0;
    if (bytes.length > 0) this.#write(this.#start, bytes);
  }
}
