import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type CipherSpec, SectorCipher } from '../src/index.ts';
import { specs } from './support.ts';

const SECTOR = 512;

/** One sector by node:crypto's own mode: slow, and not ours. */
function bySector(spec: CipherSpec, key: Uint8Array, number: bigint, bytes: Uint8Array): Buffer {
  const iv = Buffer.alloc(16);
  iv.writeBigUInt64LE(spec.iv === 'plain' ? number & 0xffff_ffffn : number);
  let initial: Uint8Array = iv;
  if (spec.ivHash !== null) {
    const salt = createHash(spec.ivHash).update(key).digest();
    initial = createCipheriv(`aes-${salt.length * 8}-ecb`, salt, null).update(iv);
  }
  const bits = (spec.mode === 'xts' ? key.length / 2 : key.length) * 8;
  const cipher = createCipheriv(`aes-${bits}-${spec.mode}`, key, initial).setAutoPadding(false);
  return Buffer.concat([cipher.update(bytes), cipher.final()]);
}

describe.each(Object.entries(specs))('%s', (_, spec) => {
  const key = randomBytes(spec.keyBytes);
  const cipher = new SectorCipher(spec, key);

  // the last one is above 32 bits, and crosses into them
  test.each([0, 1, 2 ** 32 - 70])('is what node makes of each sector, from %i on', (first) => {
    const plain = randomBytes(300 * SECTOR);
    const expected = Buffer.concat(
      Array.from({ length: 300 }, (_, index) =>
        bySector(
          spec,
          key,
          BigInt(first + index),
          plain.subarray(index * SECTOR, (index + 1) * SECTOR),
        ),
      ),
    );
    // at an odd place in memory
    const target = new Uint8Array(plain.length + 1).subarray(1);
    cipher.encrypt(first, plain, target);
    expect(Buffer.compare(target, expected)).toBe(0);
    cipher.decrypt(first, target, target);
    expect(Buffer.compare(target, plain)).toBe(0);
  });
});
