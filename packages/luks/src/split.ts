import { randomBytes } from 'node:crypto';
import { digestOf, type HashName, hashBytes } from './cipher-spec.ts';

/**
 * The anti-forensic splitter: a key becomes `stripes` pieces, of which none may be missing, so that a part that is overwritten on the disk is enough
 * to lose it. Source: LUKS specification 1.2.3, 2.4.
 */

/** @returns `stripes` times as many bytes as the key has */
export function splitKey(key: Uint8Array, stripes: number, hash: HashName): Uint8Array {
  const split = randomBytes(key.length * stripes);
  const last = split.subarray(key.length * (stripes - 1));
  last.set(mixed(split, key.length, stripes, hash));
  xor(last, key);
  return split;
}

/** The key that pieces were made of. */
export function mergeKey(split: Uint8Array, stripes: number, hash: HashName): Uint8Array {
  const size = split.length / stripes;
  const key = mixed(split, size, stripes, hash);
  xor(key, split.subarray(size * (stripes - 1)));
  return key;
}

/** All pieces but the last one, diffused into one. */
function mixed(split: Uint8Array, size: number, stripes: number, hash: HashName): Uint8Array {
  const sum = new Uint8Array(size);
  for (let stripe = 0; stripe < stripes - 1; stripe++) {
    xor(sum, split.subarray(stripe * size, (stripe + 1) * size));
    diffuse(sum, hash);
  }
  return sum;
}

/** Replaces each piece of the hash's size by the hash of its number and itself. */
function diffuse(bytes: Uint8Array, hash: HashName): void {
  const size = hashBytes(hash);
  for (let index = 0, from = 0; from < bytes.length; index++, from += size) {
    const piece = bytes.subarray(from, from + size);
    const numbered = new Uint8Array(4 + piece.length);
    new DataView(numbered.buffer).setUint32(0, index);
    numbered.set(piece, 4);
    piece.set(digestOf(hash, numbered).subarray(0, piece.length));
  }
}

function xor(bytes: Uint8Array, other: Uint8Array): void {
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = (bytes[index] as number) ^ (other[index] as number);
}
