import { endianness } from 'node:os';

const SWAP = endianness() === 'LE';

/**
 * Big-endian table bytes as 32-bit words of this machine, in place: entry i of a table of 8-byte entries is
 * `words[2 * i]` (high) and `words[2 * i + 1]` (low). The words share `bytes`' memory, which must start at a multiple of 4.
 */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  if (SWAP) Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).swap32();
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Big-endian bytes as 16-bit words of this machine, in place; as `wordsOf`. */
export function halfWordsOf(bytes: Uint8Array): Uint16Array {
  if (SWAP) Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).swap16();
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
}

/** A copy of `words` as big-endian bytes. */
export function bytesOf(words: Uint32Array): Uint8Array {
  const copy = words.slice();
  const bytes = Buffer.from(copy.buffer, copy.byteOffset, copy.byteLength);
  return SWAP ? bytes.swap32() : bytes;
}

/** Fewer words than this are sooner gone through than compared. */
const WORTHWHILE_WORDS = 256;

/** How many words come before the zeros that a table ends with, or somewhat more: most tables of small images are all but empty. */
export function usedWords(words: Uint16Array | Uint32Array | Float64Array): number {
  let end = words.length;
  if (end > WORTHWHILE_WORDS && isZero(words)) return 0;
  while (end > WORTHWHILE_WORDS && isZero(words.subarray(end >> 1, end))) end >>= 1;
  return end;
}

/** Whether all bytes of `words`, which has some, are zero: the first one is, and each is as the next. By the system's comparison, not by a loop. */
function isZero(words: Uint16Array | Uint32Array | Float64Array): boolean {
  const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
  return bytes[0] === 0 && bytes.compare(bytes, 1, bytes.length, 0, bytes.length - 1) === 0;
}
