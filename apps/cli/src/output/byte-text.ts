import { printBytes } from './print.ts';

/** Bytes that are collected before they are printed. */
const FULL = 1 << 18;
const BILLION = 1_000_000_000;
const [ZERO, NINE_DIGITS] = [48, 9];

/** ASCII text for stdout that is made of millions of pieces: put together as bytes, since a string each would cost more than finding out what to print. */
export class ByteText {
  #bytes = Buffer.alloc(2 * FULL);
  #length = 0;

  /** Makes room for what is added next, `bytes` at most. */
  reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const larger = Buffer.alloc(2 * (this.#length + bytes));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }

  /** Adds text, as bytes, where room was made. */
  text(bytes: Uint8Array): void {
    let at = this.#length;
    for (let index = 0; index < bytes.length; index++) this.#bytes[at++] = bytes[index] as number;
    this.#length = at;
  }

  /** Adds a non-negative safe integer, 16 bytes at most, where room was made. */
  number(value: number): void {
    if (value < BILLION) {
      this.#digits(value, digitsOf(value));
      return;
    }
    const high = Math.floor(value / BILLION);
    this.#digits(high, digitsOf(high));
    this.#digits(value - high * BILLION, NINE_DIGITS);
  }

  /** Waits while the reader is slow. */
  async printIfFull(): Promise<void> {
    if (this.#length >= FULL) await this.print();
  }

  /** Prints what there is. */
  async print(): Promise<void> {
    await printBytes(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
  }

  #digits(value: number, count: number): void {
    let rest = value | 0;
    for (let at = this.#length + count - 1; at >= this.#length; at--) {
      const tens = (rest / 10) | 0;
      this.#bytes[at] = ZERO + rest - tens * 10;
      rest = tens;
    }
    this.#length += count;
  }
}

/** Decimal digits of an integer below ten billion; 0 has one. */
function digitsOf(value: number): number {
  let count = 1;
  for (let limit = 10; value >= limit; limit *= 10) count++;
  return count;
}
