import { printBytes } from './print.ts';

/** Bytes that are collected before they are printed. */
const FULL = 1 << 18;
const ZERO = 48;
/** Digits that are written at once. */
const TOGETHER = 4;
const TEN_THOUSAND = 10 ** TOGETHER;
const HUNDRED_MILLION = TEN_THOUSAND ** 2;

/** The digits of 0 to 9999, four each. */
const DIGITS = new Uint8Array(TOGETHER * TEN_THOUSAND);
for (let value = 0; value < TEN_THOUSAND; value++)
  for (let [at, rest] = [TOGETHER - 1, value]; at >= 0; at--) {
    DIGITS[TOGETHER * value + at] = ZERO + (rest % 10);
    rest = Math.floor(rest / 10);
  }

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
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Writes a non-negative safe integer over as many digits that are there, and end `before` bytes before the end. */
  number(value: number, before: number): void {
    let at = this.#length - before;
    let rest = value;
    if (value >= HUNDRED_MILLION) {
      rest = Math.floor(value / HUNDRED_MILLION);
      const eight = (value - rest * HUNDRED_MILLION) | 0;
      const upper = (eight / TEN_THOUSAND) | 0;
      this.#fourDigits(upper, at - 2 * TOGETHER);
      this.#fourDigits(eight - upper * TEN_THOUSAND, at - TOGETHER);
      at -= 2 * TOGETHER;
    }
    let few = rest | 0;
    if (few >= TEN_THOUSAND) {
      const upper = (few / TEN_THOUSAND) | 0;
      at -= TOGETHER;
      this.#fourDigits(few - upper * TEN_THOUSAND, at);
      few = upper;
    }
    do {
      const tens = (few / 10) | 0;
      at -= 1;
      this.#bytes[at] = ZERO + few - tens * 10;
      few = tens;
    } while (few > 0);
  }

  #fourDigits(value: number, at: number): void {
    const bytes = this.#bytes;
    const from = value * TOGETHER;
    bytes[at] = DIGITS[from] as number;
    bytes[at + 1] = DIGITS[from + 1] as number;
    bytes[at + 2] = DIGITS[from + 2] as number;
    bytes[at + 3] = DIGITS[from + 3] as number;
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
}

/** Decimal digits of a non-negative safe integer; 0 has one. */
export function digitsOf(value: number): number {
  const isLong = value >= 1e8;
  let count = isLong ? 9 : 1;
  for (let limit = isLong ? 1e9 : 10; value >= limit; limit *= 10) count++;
  return count;
}
