import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import { patternBytes, patternStorage } from './pattern.ts';
import {
  assertRefused,
  contentOf,
  copy,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  pathOf,
  pieceOf,
  readAt,
  type StorageCase,
} from './subject.ts';

/** Longer than any piece that an implementation is likely to copy at once, and odd. */
const LARGE_BYTES = (5 << 20) + 4097;

export const copyCases: readonly StorageCase[] = [
  {
    id: 'copy/between-files',
    because: 'a commit is made of such copies',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(20_000);
      const expected = context.bytes(20_000);
      await using source = await createWith(subject, bytes, 'source');
      await using target = await createWith(subject, expected, 'target');
      for (const [from, to, length] of [
        [0, 0, 1],
        [1, 2, 511],
        [4095, 8191, 4097],
        [12_345, 1000, 5000],
      ] as const) {
        await copy(target, source, from, to, length);
        expected.set(bytes.subarray(from, from + length), to);
      }
      assertSameBytes(await contentOf(target), expected, 'the target');
      assertSameBytes(await contentOf(source), bytes, 'the source');
    },
  },
  {
    id: 'copy/large',
    because: 'an extent of any length is one copy, however many pieces it takes',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, LARGE_BYTES);
      await using source = await createWith(subject, bytes, 'source');
      await using target = await createFile(subject, 'target');
      await copy(target, source, 0, 333, LARGE_BYTES);
      const expected = new Uint8Array(333 + LARGE_BYTES);
      expected.set(bytes, 333);
      assertSameBytes(await contentOf(target), expected, 'the target');
    },
  },
  {
    id: 'copy/from-read-only',
    because: 'layers above base are opened for reading',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(3000);
      await (await createWith(subject, bytes, 'source'))[Symbol.asyncDispose]();
      await using source = await subject.backend.open(pathOf(subject, 'source'), 'read');
      await using target = await createFile(subject, 'target');
      await copy(target, source, 0, 0, 3000);
      assertSameBytes(await contentOf(target), bytes, 'the target');
    },
  },
  {
    id: 'copy/from-another-backend',
    because: 'base and top may be stored in different ways',
    needs: MAKES_FILES,
    run: async (subject) => {
      await using source = patternStorage(LARGE_BYTES);
      await using target = await createFile(subject);
      await copy(target, source, 7, 1000, LARGE_BYTES - 7);
      const expected = new Uint8Array(1000 + LARGE_BYTES - 7);
      expected.set(patternBytes(7, LARGE_BYTES - 7), 1000);
      assertSameBytes(await contentOf(target), expected, 'the target');
    },
  },
  {
    id: 'copy/past-source-end-is-zero',
    because: 'a short layer reads as zeros past its end, and hides what the target held',
    needs: ['write'],
    run: async (subject, context) => {
      const [bytes, expected] = [nonZeroBytes(context, 1000), nonZeroBytes(context, 20_000)];
      await using source = await createWith(subject, bytes, 'source');
      await using target = await createWith(subject, expected, 'target');
      await copy(target, source, 600, 5000, 6000);
      expected.fill(0, 5000, 11_000).set(bytes.subarray(600), 5000);
      await copy(target, source, 9000, 12_000, 500);
      expected.fill(0, 12_000, 12_500);
      assertSameBytes(await contentOf(target), expected, 'the target');
      assert.equal(await source.length(), 1000, 'length of the source');
    },
  },
  {
    id: 'copy/past-source-end-grows-the-target',
    because: 'the target holds the whole range afterwards, zeros too',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using source = await createWith(subject, nonZeroBytes(context, 10), 'source');
      await using target = await createFile(subject, 'target');
      await copy(target, source, 5, 0, 3000);
      assert.equal(await target.length(), 3000, 'length of the target');
    },
  },
  {
    id: 'copy/hole-is-zero',
    because: 'a hole of the source is data: it hides what the target held',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using source = await createFile(subject, 'source');
      await source.write(hostOffset(70_000), context.bytes(10));
      await using target = await createWith(subject, nonZeroBytes(context, 70_000), 'target');
      await copy(target, source, 0, 0, 70_000);
      assertSameBytes(await contentOf(target), new Uint8Array(70_000), 'the target');
    },
  },
  {
    id: 'copy/within-a-file',
    because: 'tables move to the end of their own file; ranges may touch',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = context.bytes(9000);
      await using file = await createWith(subject, expected);
      await copy(file, file, 0, 3000, 3000);
      expected.copyWithin(3000, 0, 3000);
      await copy(file, file, 6000, 5000, 1000);
      expected.copyWithin(5000, 6000, 7000);
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'copy/onto-itself-is-refused',
    because: 'copied front to back, the bytes would be read after they were overwritten',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(9000);
      await using file = await createWith(subject, bytes);
      await using again = await subject.backend.open(pathOf(subject, 'file'), 'read');
      for (const source of [file, again])
        for (const [from, to] of [
          [0, 1000],
          [1000, 0],
          [500, 500],
        ] as const)
          await assertRefused('STORAGE_RANGE', `${from} to ${to}`, () =>
            copy(file, source, from, to, 1001),
          );
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'copy/no-bytes',
    because: 'an empty range changes nothing, the length neither',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using source = await createWith(subject, context.bytes(100), 'source');
      await using target = await createFile(subject, 'target');
      await copy(target, source, 10, 5000, 0);
      assert.equal(await target.length(), 0, 'length of the target');
    },
  },
  {
    id: 'copy/from-closed-is-refused',
    because: 'a descriptor that was given back may already belong to another file',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const source = await createWith(subject, context.bytes(100), 'source');
      await using target = await createFile(subject, 'target');
      await source[Symbol.asyncDispose]();
      await assertRefused('STORAGE_CLOSED', 'a copy from a closed file', () =>
        copy(target, source, 0, 0, 100),
      );
      assertSameBytes(await readAt(target, 0, 100), new Uint8Array(100), 'the target');
    },
  },
  {
    id: 'copy/many-pieces',
    because:
      'scattered clusters are copied in one call: side by side or apart, from several files, from the file itself',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const [first, second] = [nonZeroBytes(context, 20_000), nonZeroBytes(context, 9000)];
      const expected = nonZeroBytes(context, 40_000);
      await using a = await createWith(subject, first, 'a');
      await using b = await createWith(subject, second, 'b');
      await using target = await createWith(subject, expected, 'target');
      const before = expected.slice();
      const parts = [
        [a, first, 8192, 4096, 4096],
        [b, second, 4096, 8192, 4096],
        [a, first, 1, 12_288, 4999],
        [b, second, 8000, 17_287, 2000],
        [a, first, 0, 100, 0],
        [target, before, 30_000, 2000, 1000],
        [a, first, 50_000, 39_000, 3000],
      ] as const;
      await target.copyFrom(
        parts.map(([source, , from, to, length]) => pieceOf(source, from, to, length)),
      );
      const whole = new Uint8Array(42_000);
      whole.set(expected);
      for (const [, bytes, from, to, length] of parts)
        whole.fill(0, to, to + length).set(bytes.subarray(from, from + length), to);
      assertSameBytes(await contentOf(target), whole, 'the target');
      await target.copyFrom([]);
    },
  },
  {
    id: 'copy/many-pieces-large',
    because: 'the clusters of gigabytes are one call: what does not fit a turn is gone on with',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const piece = 65_536;
      const count = Math.ceil(LARGE_BYTES / piece) + 20;
      const bytes = new Uint8Array(count * piece);
      for (let at = 0; at < bytes.length; at += 997) bytes[at] = 1 + context.integer(255);
      await using source = await createWith(subject, bytes, 'source');
      await using target = await createFile(subject, 'target');
      const places = Array.from({ length: count }, (_, index) => (index * 7) % count);
      await target.copyFrom(
        places.map((place, index) => pieceOf(source, place * piece, 5 + index * piece, piece)),
      );
      const expected = new Uint8Array(5 + bytes.length);
      for (const [index, place] of places.entries())
        expected.set(bytes.subarray(place * piece, (place + 1) * piece), 5 + index * piece);
      assertSameBytes(await contentOf(target), expected, 'the target');
    },
  },
  {
    id: 'copy/pieces-of-several-backends',
    because: 'the layers of a chain may be stored in different ways, and their clusters mixed',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using other = patternStorage(20_000);
      await using own = await createWith(subject, bytes, 'source');
      await using target = await createFile(subject, 'target');
      await target.copyFrom([
        pieceOf(own, 0, 0, 3000),
        pieceOf(other, 500, 3000, 3000),
        pieceOf(other, 10_000, 6000, 50),
        pieceOf(own, 3000, 6050, 6000),
      ]);
      const expected = new Uint8Array(12_050);
      expected.set(bytes.subarray(0, 3000));
      expected.set(patternBytes(500, 3000), 3000);
      expected.set(patternBytes(10_000, 50), 6000);
      expected.set(bytes.subarray(3000), 6050);
      assertSameBytes(await contentOf(target), expected, 'the target');
    },
  },
];
