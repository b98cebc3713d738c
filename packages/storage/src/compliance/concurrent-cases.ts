import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import type { Storage } from '../storage.ts';
import {
  contentOf,
  copy,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  rangeAt,
  readAt,
  type StorageCase,
} from './subject.ts';

const SLOT_BYTES = 10_007;
const SLOTS = 24;

/** The kinds of change that a slot of the file may get, as what it reads afterwards. */
type Change = (file: Storage, at: number, bytes: Uint8Array) => Promise<Uint8Array>;

function changesFrom(source: Storage, content: Uint8Array): readonly Change[] {
  return [
    async (file, at, bytes) => {
      await file.write(hostOffset(at), bytes);
      return bytes;
    },
    async (file, at, bytes) => {
      await file.writeZeroes(rangeAt(at, bytes.length));
      return new Uint8Array(bytes.length);
    },
    async (file, at, bytes) => {
      await copy(file, source, 100, at, bytes.length);
      return content.slice(100, 100 + bytes.length);
    },
  ];
}

export const concurrentCases: readonly StorageCase[] = [
  {
    id: 'concurrent/changes-beside-each-other',
    because:
      'the engine keeps several pieces in flight; a file that one of them grows must not lose another',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const content = nonZeroBytes(context, SLOT_BYTES + 100);
      await using source = await createWith(subject, content, 'source');
      const changes = changesFrom(source, content);
      for (let round = 0; round < 10; round++) {
        await using file = await createFile(subject, `target-${round}`);
        const slots = Array.from({ length: SLOTS }, (_, slot) => ({
          slot,
          key: context.random(),
        })).sort((left, right) => left.key - right.key);
        const expected = new Uint8Array(SLOTS * SLOT_BYTES);
        await Promise.all(
          slots.map(async ({ slot }) => {
            const change = changes[context.integer(changes.length)] as Change;
            const found = await change(file, slot * SLOT_BYTES, nonZeroBytes(context, SLOT_BYTES));
            expected.set(found, slot * SLOT_BYTES);
          }),
        );
        assertSameBytes(await contentOf(file), expected, `round ${round}`);
      }
    },
  },
  {
    id: 'concurrent/reads-beside-writes',
    because: 'guests read while a commit writes',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1 << 20);
      await using file = await createWith(subject, bytes);
      const half = bytes.length / 2;
      const later = nonZeroBytes(context, half);
      const [first, second] = await Promise.all([
        readAt(file, 0, half),
        readAt(file, 300_000, 1000),
        file.write(hostOffset(half), later),
        file.flush('kit: beside'),
      ]);
      assertSameBytes(first, bytes.subarray(0, half), 'the large read');
      assertSameBytes(second, bytes.subarray(300_000, 301_000), 'the small read');
      assertSameBytes(await readAt(file, half, half), later, 'what was written');
    },
  },
  {
    id: 'concurrent/copies-both-ways',
    because: 'buffers of copies must not be shared by two at once',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const length = (2 << 20) + 77;
      const [left, right] = [nonZeroBytes(context, length), nonZeroBytes(context, length)];
      await using a = await createWith(subject, left, 'a');
      await using b = await createWith(subject, right, 'b');
      await Promise.all([copy(a, b, 0, length, length), copy(b, a, 0, length, length)]);
      assertSameBytes(await readAt(a, length, length), right, 'from b to a');
      assertSameBytes(await readAt(b, length, length), left, 'from a to b');
    },
  },
  {
    id: 'concurrent/flushes',
    because: 'a checkpoint may meet the guest’s own flush',
    needs: ['write'],
    run: async (subject, context) => {
      await using file = await createWith(subject, context.bytes(5000));
      const flushes = Array.from({ length: 8 }, (_, index) => file.flush(`kit: ${index}`));
      await Promise.all(flushes);
      assert.equal(await file.length(), 5000, 'length');
    },
  },
];
