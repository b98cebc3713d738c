import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import {
  copy,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  pathOf,
  rangeAt,
  readAt,
  type StorageCase,
  setLength,
} from './subject.ts';

const TERABYTE = 2 ** 40;
/** Beyond 32 bits in bytes and in sectors; below the 16 TiB where ext4 ends. */
const FAR = 3 * TERABYTE + 5 * 2 ** 32 + 12_345;

export const sparseCases: readonly StorageCase[] = [
  {
    id: 'sparse/far-offsets-are-exact',
    because: 'offsets exceed 32 bits; an implementation that cuts them writes over the header',
    needs: [...MAKES_FILES, 'sparse'],
    run: async (subject, context) => {
      const [near, bytes] = [nonZeroBytes(context, 1000), nonZeroBytes(context, 9000)];
      await using file = await createWith(subject, near);
      await file.write(hostOffset(FAR), bytes);
      assert.equal(await file.length(), FAR + 9000, 'length');
      assertSameBytes(await readAt(file, FAR, 9000), bytes, 'far');
      assertSameBytes(await readAt(file, 0, 1000), near, 'near');
      assertSameBytes(await readAt(file, FAR % 2 ** 32, 9000), new Uint8Array(9000), 'between');
      const facts = await subject.backend.facts(pathOf(subject, 'file'));
      assert.equal(facts.length, FAR + 9000, 'length by its facts');
    },
  },
  {
    id: 'sparse/far-copies-and-zeros',
    because: 'every operation takes far offsets, not writes alone',
    needs: [...MAKES_FILES, 'sparse'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using source = await createFile(subject, 'source');
      await source.write(hostOffset(FAR), bytes);
      await using target = await createFile(subject, 'target');
      await copy(target, source, FAR, FAR + 100_000, 9000);
      await target.writeZeroes(rangeAt(FAR + 101_000, 500));
      assertSameBytes(
        await readAt(target, FAR + 100_000, 9000),
        bytes.fill(0, 1000, 1500),
        'the target',
      );
    },
  },
  {
    id: 'sparse/zeros-past-the-end-are-a-hole',
    because: 'an image of terabytes is created in one call',
    needs: [...MAKES_FILES, 'sparse'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1000);
      await using file = await createWith(subject, bytes);
      await file.writeZeroes(rangeAt(500, TERABYTE));
      assert.equal(await file.length(), TERABYTE + 500, 'length');
      const expected = new Uint8Array(1000);
      expected.set(bytes.subarray(0, 500));
      assertSameBytes(await readAt(file, 0, 1000), expected, 'the start');
      assertSameBytes(await readAt(file, TERABYTE, 500), new Uint8Array(500), 'the end');
    },
  },
  {
    id: 'sparse/far-lengths',
    because: 'virtual disks are terabytes long',
    needs: [...MAKES_FILES, 'sparse', 'resize'],
    run: async (subject) => {
      await using file = await createFile(subject);
      await setLength(file, FAR);
      assert.equal(await file.length(), FAR, 'length');
      await setLength(file, 10);
      assert.equal(await file.length(), 10, 'length');
    },
  },
];
