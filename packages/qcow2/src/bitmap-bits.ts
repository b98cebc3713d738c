/**
 * Bits of a bitmap as bytes, the least significant bit first: as the file has them. Bit i stands for guest bytes
 * [i * granularity, (i + 1) * granularity).
 */

/** Bytes that the bits of a disk take. */
export function bitmapBytes(size: number, granularity: number): number {
  return Math.ceil(Math.ceil(size / granularity) / 8);
}

/** Sets the bits [from, to). */
export function setBits(bits: Uint8Array, from: number, to: number): void {
  if (from >= to) return;
  const [first, last] = [from >>> 3, (to - 1) >>> 3];
  const [head, tail] = [(0xff << (from & 7)) & 0xff, 0xff >>> (7 - ((to - 1) & 7))];
  if (first === last) {
    bits[first] = (bits[first] as number) | (head & tail);
    return;
  }
  bits[first] = (bits[first] as number) | head;
  bits.fill(0xff, first + 1, last);
  bits[last] = (bits[last] as number) | tail;
}

/** The bits for a disk of `size` bytes: what lies past its end is gone, what is new is not set. */
export function bitsFor(bits: Uint8Array, size: number, granularity: number): Uint8Array {
  const fitted = new Uint8Array(bitmapBytes(size, granularity));
  fitted.set(bits.subarray(0, fitted.length));
  const count = Math.ceil(size / granularity);
  if (count % 8 !== 0)
    fitted[fitted.length - 1] = (fitted.at(-1) as number) & (0xff >>> (8 - (count % 8)));
  return fitted;
}
