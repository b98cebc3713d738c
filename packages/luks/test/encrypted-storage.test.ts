import { randomBytes } from 'node:crypto';
import type { Storage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { beforeEach, describe, expect, test } from 'vitest';
import { encryptedStorage, SectorCipher } from '../src/index.ts';
import { bytesIn, specs, storageOf } from './support.ts';

const SIZE = 3 << 20;
const START = 4096;
const spec = specs['aes-256 xts-plain64'];
if (spec === undefined) throw new Error('unreachable');

describe('an encrypted file', () => {
  let file: Storage;
  let shown: Storage;
  let model: Uint8Array;

  beforeEach(async () => {
    const cipher = new SectorCipher(spec, randomBytes(spec.keyBytes));
    file = await storageOf(new Uint8Array(START));
    shown = encryptedStorage(file, cipher, START);
    model = randomBytes(SIZE);
    await shown.write(hostOffset(0), model);
  });

  const same = async (): Promise<boolean> => Buffer.compare(await bytesIn(shown), model) === 0;

  // pieces of 1 MiB, sectors, and what cuts them
  test.each([
    [0, 512],
    [511, 2],
    [100, 50],
    [512, 700],
    [700, 324],
    [1000, 2 << 20],
    [(1 << 20) - 1, 2],
    [SIZE - 1, 1],
  ])('a write at byte %i of %i bytes changes these alone', async (offset, length) => {
    const bytes = randomBytes(length);
    model.set(bytes, offset);
    await shown.write(hostOffset(offset), bytes);
    expect(await same()).toBe(true);
    const part = new Uint8Array(length);
    await shown.read(hostOffset(offset), part);
    expect(Buffer.compare(part, bytes)).toBe(0);
  });

  test('writes beside each other in one sector are all there', async () => {
    const bytes = randomBytes(512);
    model.set(bytes, 1024);
    await Promise.all(
      Array.from({ length: 64 }, (_, index) =>
        shown.write(hostOffset(1024 + index * 8), bytes.subarray(index * 8, index * 8 + 8)),
      ),
    );
    expect(await same()).toBe(true);
  });

  test('zeros read as zeros, and are none in the file', async () => {
    model.fill(0, 777, 777 + (2 << 20));
    await shown.writeZeroes({ offset: hostOffset(777), length: byteLength(2 << 20) });
    expect(await same()).toBe(true);
    expect(Buffer.from(await bytesIn(file)).includes(Buffer.alloc(512), START)).toBe(false);
  });

  test('what others copy from it is decrypted, what it copies is encrypted', async () => {
    const plain = await storageOf(new Uint8Array());
    const piece = { from: hostOffset(300), to: hostOffset(0), length: byteLength(2 << 20) };
    await plain.copyFrom([{ ...piece, source: shown }]);
    const copied = await bytesIn(plain);
    expect(Buffer.compare(copied, model.subarray(300, 300 + (2 << 20)))).toBe(0);
    await shown.copyFrom([{ ...piece, source: plain, from: hostOffset(0), to: hostOffset(512) }]);
    model.set(copied, 512);
    expect(await same()).toBe(true);
    expect(Buffer.from(await bytesIn(file)).includes(Buffer.from(copied.subarray(0, 64)))).toBe(
      false,
    );
  });

  test('cannot give space back or change its length, and closes without its file', async () => {
    expect(shown.supports).toEqual({ discard: false, resize: false });
    await shown[Symbol.asyncDispose]();
    expect(await file.length()).toBe(START + SIZE);
  });
});
