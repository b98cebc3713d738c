import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import {
  contentOf,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  rangeAt,
  type StorageCase,
} from './subject.ts';

const LARGE_BYTES = (3 << 20) + 4097;

const write: readonly StorageCase[] = [
  {
    id: 'write/changes-its-range-only',
    because: 'metadata and data of others lie next to it',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = context.bytes(20_000);
      await using file = await createWith(subject, expected);
      for (const offset of [0, 1, 511, 4095, 4096, 9000])
        for (const length of [1, 512, 513, 4096]) {
          const bytes = context.bytes(length);
          await file.write(hostOffset(offset), bytes);
          expected.set(bytes, offset);
        }
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'write/grows-the-file',
    because: 'images grow at their end; what lies between is zeros',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createWith(subject, nonZeroBytes(context, 100));
      const bytes = nonZeroBytes(context, 700);
      const expected = new Uint8Array(10_700);
      expected.set(await contentOf(file));
      expected.set(bytes, 10_000);
      await file.write(hostOffset(10_000), bytes);
      assert.equal(await file.length(), 10_700, 'length');
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'write/large',
    because:
      'all of it is written, however many system calls that takes: on a full disk they stop short',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, LARGE_BYTES);
      await using file = await createFile(subject);
      await file.write(hostOffset(777), bytes);
      const expected = new Uint8Array(777 + LARGE_BYTES);
      expected.set(bytes, 777);
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'write/no-bytes',
    because: 'an empty write changes nothing, the length neither',
    needs: MAKES_FILES,
    run: async (subject) => {
      await using file = await createFile(subject);
      await file.write(hostOffset(5000), new Uint8Array(0));
      assert.equal(await file.length(), 0, 'length');
    },
  },
  {
    id: 'write/source-is-the-callers',
    because:
      'callers use their buffers again once the write has resolved, and write from parts of larger ones',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createFile(subject);
      const buffer = context.bytes(9000);
      const before = buffer.slice();
      await file.write(hostOffset(0), buffer.subarray(500, 8500));
      assertSameBytes(buffer, before, 'the buffer after the write');
      buffer.fill(0);
      assertSameBytes(await contentOf(file), before.subarray(500, 8500), 'the file');
    },
  },
];

const writeZeroes: readonly StorageCase[] = [
  {
    id: 'write-zeroes/changes-its-range-only',
    because: 'zeroing frees clusters whose neighbours are in use',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = nonZeroBytes(context, 30_000);
      await using file = await createWith(subject, expected);
      for (const [offset, length] of [
        [1, 1],
        [500, 13],
        [4095, 2],
        [5000, 9000],
        [16_384, 4096],
      ] as const) {
        await file.writeZeroes(rangeAt(offset, length));
        expected.fill(0, offset, offset + length);
      }
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'write-zeroes/grows-the-file',
    because: 'a table of zeros at the end of an image must be inside the file',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1000);
      await using file = await createWith(subject, bytes);
      await file.writeZeroes(rangeAt(900, 5000));
      await file.writeZeroes(rangeAt(10_000, 1));
      const expected = new Uint8Array(10_001);
      expected.set(bytes.subarray(0, 900));
      assert.equal(await file.length(), 10_001, 'length');
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'write-zeroes/large',
    because: 'whole tables and extents are zeroed in one call',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = nonZeroBytes(context, LARGE_BYTES + 2000);
      await using file = await createWith(subject, expected);
      await file.writeZeroes(rangeAt(1000, LARGE_BYTES));
      assertSameBytes(
        await contentOf(file),
        expected.fill(0, 1000, 1000 + LARGE_BYTES),
        'the file',
      );
    },
  },
  {
    id: 'write-zeroes/no-bytes',
    because: 'an empty range changes nothing, the length neither',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 100);
      await using file = await createWith(subject, bytes);
      await file.writeZeroes(rangeAt(50, 0));
      await file.writeZeroes(rangeAt(5000, 0));
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
];

export const writeCases: readonly StorageCase[] = [...write, ...writeZeroes];
