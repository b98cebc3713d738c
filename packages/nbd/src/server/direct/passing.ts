import type { MessagePort } from 'node:worker_threads';
import type { FromThread } from './messages.ts';

/** Longer requests are passed on in pieces. */
const PIECE_BYTES = 1 << 20;

/** Requests on their way to the server, byte for byte. */
export class Passing {
  readonly #port: MessagePort;
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #piece: Uint8Array<ArrayBuffer> | null = null;
  #filled = 0;
  /** Bytes of the request that have not come in yet. */
  #missing = 0;
  /** Bytes that were passed on, modulo 2^32. */
  passed = 0;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  /** Bytes that belong to a request that has begun. */
  get missing(): number {
    return this.#missing;
  }

  /** A request of so many bytes begins; the one before has come in whole. */
  begin(length: number): void {
    if (this.#missing > 0) throw new Error(`${this.#missing} bytes of a request are missing`);
    this.#missing = length;
  }

  /** Takes bytes [from, to) of the request; no more than are missing. */
  take(bytes: Buffer, from: number, to: number): void {
    for (let at = from; at < to; ) {
      this.#piece ??= new Uint8Array(Math.min(PIECE_BYTES, this.#missing));
      const part = Math.min(to - at, this.#piece.length - this.#filled);
      this.#piece.set(bytes.subarray(at, at + part), this.#filled);
      this.#filled += part;
      this.#missing -= part;
      at += part;
      if (this.#filled === this.#piece.length) this.#endPiece();
    }
  }

  /** Passes on what is whole. */
  post(): void {
    if (this.#pieces.length === 0) return;
    const message: FromThread = { passed: this.#pieces };
    this.#port.postMessage(
      message,
      this.#pieces.map(({ buffer }) => buffer),
    );
    this.#pieces = [];
  }

  #endPiece(): void {
    if (this.#piece === null) return;
    this.#pieces.push(this.#piece);
    this.passed = (this.passed + this.#piece.length) | 0;
    this.#piece = null;
    this.#filled = 0;
  }
}
