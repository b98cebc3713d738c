/** Chunks of less than this, on average, are joined: a peer that sends byte by byte costs no more memory than its bytes. */
const SMALL = 4096;
/** Chunks that may be small. */
const SMALL_CHUNKS = 64;

/**
 * Bytes as they came from a socket, taken in pieces of the sizes the protocol has. Keeps chunks as they are; copies only a
 * piece that spans several.
 */
export class ByteQueue {
  readonly #chunks: Buffer[] = [];
  /** Bytes of the first chunk that are gone already. */
  #start = 0;
  #length = 0;

  /** Bytes in the queue. */
  get length(): number {
    return this.#length;
  }

  /** Appends a chunk; its owner must not change it any more. */
  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#chunks.length > SMALL_CHUNKS + this.#length / SMALL) this.#join();
  }

  /** Takes `count` bytes; `null`, and nothing taken, when there are fewer. */
  take(count: number): Buffer | null {
    if (this.#length < count) return null;
    const first = this.#chunks[0];
    if (first !== undefined && first.length - this.#start >= count) {
      const piece = first.subarray(this.#start, this.#start + count);
      this.#advance(count);
      return piece;
    }
    const piece = Buffer.allocUnsafe(count);
    this.copyInto(piece);
    return piece;
  }

  /** Takes as many bytes as fit into `target`; returns how many. */
  copyInto(target: Uint8Array): number {
    let done = 0;
    while (done < target.length) {
      const first = this.#chunks[0];
      if (first === undefined) break;
      const copied = first.copy(target, done, this.#start);
      done += copied;
      this.#advance(copied);
    }
    return done;
  }

  /** Throws away up to `count` bytes; returns how many. */
  discard(count: number): number {
    let done = 0;
    while (done < count) {
      const first = this.#chunks[0];
      if (first === undefined) break;
      const step = Math.min(count - done, first.length - this.#start);
      done += step;
      this.#advance(step);
    }
    return done;
  }

  /** First 32 bits, which stay; `null` when there are fewer. */
  peekU32(): number | null {
    if (this.#length < 4) return null;
    const first = this.#chunks[0];
    if (first !== undefined && first.length - this.#start >= 4)
      return first.readUInt32BE(this.#start);
    const word = Buffer.concat(this.#chunks.slice(0, 4)).subarray(this.#start);
    return word.readUInt32BE(0);
  }

  #join(): void {
    const all = Buffer.allocUnsafe(this.#length);
    this.copyInto(all);
    this.#chunks.push(all);
    this.#length = all.length;
  }

  /** `count` bytes within the first chunk are gone. */
  #advance(count: number): void {
    this.#start += count;
    this.#length -= count;
    if (this.#start === this.#chunks[0]?.length) {
      this.#chunks.shift();
      this.#start = 0;
    }
  }
}
