import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import {
  assertRefused,
  contentOf,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  pathOf,
  rangeAt,
  type StorageCase,
  setLength,
} from './subject.ts';

const resize: readonly StorageCase[] = [
  {
    id: 'length/of-a-new-file-is-zero',
    because: 'formats create their image in an empty file',
    needs: MAKES_FILES,
    run: async (subject) => {
      await using file = await createFile(subject);
      assert.equal(await file.length(), 0, 'length');
    },
  },
  {
    id: 'set-length/grows-with-zeros',
    because: 'a raw image grows by it',
    needs: ['write', 'resize'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1000);
      await using file = await createWith(subject, bytes);
      assert.equal(file.supports.resize, true, 'supports.resize');
      await setLength(file, 9001);
      const expected = new Uint8Array(9001);
      expected.set(bytes);
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'set-length/cuts',
    because: 'a torn record at the end of a journal is cut off',
    needs: ['write', 'resize'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using file = await createWith(subject, bytes);
      for (const length of [8999, 4097, 4096, 10, 0]) {
        await setLength(file, length);
        assertSameBytes(await contentOf(file), bytes.subarray(0, length), 'the file');
      }
    },
  },
  {
    id: 'set-length/what-was-cut-is-gone',
    because: 'old bytes must not come back when the file grows again: they may be another guest’s',
    needs: ['write', 'resize'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using file = await createWith(subject, bytes);
      await setLength(file, 1001);
      await setLength(file, 9000);
      assertSameBytes(await contentOf(file), bytes.fill(0, 1001), 'the file');
    },
  },
  {
    id: 'set-length/refused-when-absent',
    because: 'an absent ability is loud',
    whenAbsent: 'resize',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using file = await createWith(subject, bytes);
      assert.equal(file.supports.resize, false, 'supports.resize');
      for (const length of [0, 999, 1001])
        await assertRefused('STORAGE_UNSUPPORTED', 'setLength', () => setLength(file, length));
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
];

const discard: readonly StorageCase[] = [
  {
    id: 'discard/reads-as-zeros',
    because: 'freed clusters must not show what they held; neighbours are in use',
    needs: ['write', 'discard'],
    run: async (subject, context) => {
      const expected = nonZeroBytes(context, 300_000);
      await using file = await createWith(subject, expected);
      assert.equal(file.supports.discard, true, 'supports.discard');
      for (const [offset, length] of [
        [1, 1],
        [4095, 2],
        [10_000, 100_000],
        [131_072, 65_536],
      ] as const) {
        await file.discard(rangeAt(offset, length));
        expected.fill(0, offset, offset + length);
      }
      assertSameBytes(await contentOf(file), expected, 'the file');
    },
  },
  {
    id: 'discard/keeps-the-length',
    because: 'the length of the file is part of a raw image',
    needs: ['write', 'discard'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using file = await createWith(subject, bytes);
      await file.discard(rangeAt(5000, 100_000));
      await file.discard(rangeAt(20_000, 4096));
      assertSameBytes(await contentOf(file), bytes.fill(0, 5000), 'the file');
    },
  },
  {
    id: 'discard/gives-space-back',
    because: 'that is what it is for',
    needs: ['write', 'allocated', 'discard'],
    run: async (subject, context) => {
      await using file = await createWith(subject, nonZeroBytes(context, 1 << 20));
      await file.flush('kit: before discard');
      const before = await subject.backend.facts(pathOf(subject, 'file'));
      await file.discard(rangeAt(0, 1 << 20));
      await file.flush('kit: after discard');
      const after = await subject.backend.facts(pathOf(subject, 'file'));
      assert.ok(
        after.allocated < before.allocated,
        `${after.allocated} bytes in use after, ${before.allocated} before`,
      );
    },
  },
  {
    id: 'discard/refused-when-absent',
    because: 'an absent ability is loud; a discard that does nothing would leak old bytes',
    whenAbsent: 'discard',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(9000);
      await using file = await createWith(subject, bytes);
      assert.equal(file.supports.discard, false, 'supports.discard');
      await assertRefused('STORAGE_UNSUPPORTED', 'discard', () => file.discard(rangeAt(0, 4096)));
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
];

export const lengthCases: readonly StorageCase[] = [...resize, ...discard];
