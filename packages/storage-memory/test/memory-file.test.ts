import { caseContext } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { MemoryFile } from '../src/memory-file.ts';

const PAGE = 4096;

function contentOf(file: MemoryFile): Uint8Array {
  const bytes = new Uint8Array(file.length).fill(0xee);
  expect(file.read(0, bytes)).toBe(file.length);
  return bytes;
}

function fileWith(
  ...writes: readonly (readonly [offset: number, bytes: Uint8Array])[]
): MemoryFile {
  const file = new MemoryFile();
  for (const [offset, bytes] of writes) file.write(offset, bytes);
  return file;
}

describe('the digest of a file', () => {
  const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

  test('is of the content, not of how it came about', () => {
    const once = fileWith([0, filled(3 * PAGE, 7)]);
    const bit = fileWith([2 * PAGE, filled(PAGE, 7)], [0, filled(2 * PAGE + 5, 7)]);
    expect(bit.digest()).toBe(once.digest());
    const before = once.digest();
    once.write(5000, filled(1, 8));
    expect(once.digest()).not.toBe(before);
    once.write(5000, filled(1, 7));
    expect(once.digest()).toBe(before);
  });

  test('takes zeros for what they are: written, cleared, cut or never there', () => {
    const never = new MemoryFile();
    never.setLength(4 * PAGE);
    const written = fileWith([0, new Uint8Array(4 * PAGE)]);
    const cleared = fileWith([0, filled(4 * PAGE, 7)]);
    cleared.digest();
    cleared.zero(0, 4 * PAGE);
    const cut = fileWith([0, filled(4 * PAGE, 7)]);
    cut.setLength(0);
    cut.setLength(4 * PAGE);
    for (const file of [written, cleared, cut]) expect(file.digest()).toBe(never.digest());
  });

  test('tells lengths, places and neighbouring values apart', () => {
    const digests = [
      new MemoryFile(),
      fileWith([0, filled(1, 0)]),
      fileWith([0, filled(1, 1)]),
      fileWith([0, filled(PAGE, 1)]),
      fileWith([PAGE, filled(PAGE, 1)]),
      fileWith([0, filled(PAGE, 1)], [2 * PAGE - 1, filled(1, 0)]),
      fileWith([2 ** 44, filled(PAGE, 1)]),
      fileWith([0, filled(PAGE, 1)], [PAGE, filled(PAGE, 2)]),
      fileWith([0, filled(PAGE, 2)], [PAGE, filled(PAGE, 1)]),
    ].map((file) => file.digest());
    expect(new Set(digests).size).toBe(digests.length);
  });

  test('of 20,000 files that differ in two words: no two are equal', () => {
    const file = fileWith([0, filled(PAGE, 3)]);
    const digests = new Set<string>();
    const word = new Uint8Array(4);
    for (let count = 0; count < 200; count++) {
      new DataView(word.buffer).setUint32(0, count);
      file.write(40, word);
      for (let other = 0; other < 100; other++) {
        new DataView(word.buffer).setUint32(0, other);
        file.write(400, word);
        digests.add(file.digest());
      }
    }
    expect(digests.size).toBe(20_000);
  });
});

describe('copies', () => {
  test.each([1, 2, 3, 4, 5, 6])('of copies stay apart, and digests true (seed %i)', (seed) => {
    const { integer, bytes } = caseContext(seed);
    const files: { file: MemoryFile; model: Uint8Array }[] = [
      { file: new MemoryFile(), model: new Uint8Array(0) },
    ];
    const resized = (model: Uint8Array, length: number): Uint8Array => {
      const next = new Uint8Array(length);
      next.set(model.subarray(0, length));
      return next;
    };
    for (let step = 0; step < 300; step++) {
      const one = files[integer(files.length)] as (typeof files)[number];
      const [offset, length] = [integer(60 * PAGE), 1 + integer(integer(2) === 0 ? 600 : 6 * PAGE)];
      const end = offset + length;
      const kind = integer(6);
      if (kind === 0 && files.length < 12)
        files.push({ file: one.file.copy(), model: one.model.slice() });
      else if (kind === 1) {
        one.file.zero(offset, length);
        one.model = resized(one.model, Math.max(one.model.length, end)).fill(0, offset, end);
      } else if (kind === 2) {
        one.file.discard(offset, length);
        one.model.fill(0, offset, end);
      } else if (kind === 3) {
        one.file.setLength(offset);
        one.model = resized(one.model, offset);
      } else {
        const source = bytes(length);
        one.file.write(offset, source);
        one.model = resized(one.model, Math.max(one.model.length, end));
        one.model.set(source, offset);
      }
      if (integer(3) === 0) one.file.digest();
    }
    for (const { file, model } of files) {
      expect(Buffer.compare(contentOf(file), model)).toBe(0);
      expect(file.digest()).toBe(fileWith([0, model]).digest());
    }
  });

  test('share what is equal: a thousand that differ in a page are not a thousand files', () => {
    const file = fileWith([0, new Uint8Array(4 << 20).fill(7)]);
    const before = process.memoryUsage().arrayBuffers;
    const copies = Array.from({ length: 1000 }, (_, index) => {
      const copy = file.copy();
      copy.write(index * PAGE, Uint8Array.of(1));
      return copy;
    });
    // 4 GiB if they shared nothing
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20);
    expect(new Set(copies.map((copy) => copy.digest())).size).toBe(1000);
  });
});

test('allocated counts pages that hold something', () => {
  const file = fileWith([0, new Uint8Array(1)], [10 * PAGE, new Uint8Array(PAGE + 1)]);
  expect(file.allocated).toBe(3 * PAGE);
  const copy = file.copy();
  copy.discard(10 * PAGE, PAGE);
  expect([copy.allocated, file.allocated]).toEqual([2 * PAGE, 3 * PAGE]);
});
