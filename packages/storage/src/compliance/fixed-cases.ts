import { assertSameBytes, type CaseContext } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import type { Storage } from '../storage.ts';
import {
  contentOf,
  copy,
  createWith,
  nonZeroBytes,
  pathOf,
  rangeAt,
  readAt,
  type StorageCase,
} from './subject.ts';

/** Lengths here are multiples of this, so that places with blocks of up to 4 KiB can have such files. */
const BLOCK_BYTES = 4096;
const FILE_BYTES = 50 * BLOCK_BYTES;
const OPERATIONS = 300;
const SLOTS = 20;
/** No multiple of any block. */
const SLOT_BYTES = 10_007;
/** Offsets and lengths are drawn near multiples of these, where blocks end. */
const SEAMS = [1, 512, 4096, 65_536] as const;

/** A range that may go past the end when `beyond` bytes may. */
function someRange(context: CaseContext, beyond = 0): { offset: number; length: number } {
  const near = (below: number): number => {
    const seam = SEAMS[context.integer(SEAMS.length)] ?? 1;
    const at = context.integer(Math.ceil(below / seam)) * seam + context.integer(3) - 1;
    return Math.max(0, Math.min(below, at));
  };
  const offset = near(FILE_BYTES + beyond);
  return { offset, length: near(Math.min(FILE_BYTES / 4, FILE_BYTES + beyond - offset)) };
}

/** One operation, done on the file and on `expected`, its model. */
async function operate(
  file: Storage,
  expected: Uint8Array,
  source: Storage,
  content: Uint8Array,
  context: CaseContext,
): Promise<string> {
  const kind = context.integer(file.supports.discard ? 5 : 4);
  const { offset, length } = someRange(context, kind === 4 || kind === 3 ? 5000 : 0);
  const bytes = context.bytes(length);
  if (kind === 0) await file.write(hostOffset(offset), bytes);
  else if (kind === 1) await file.writeZeroes(rangeAt(offset, length));
  else if (kind === 2) await copy(file, source, FILE_BYTES - offset, offset, length);
  else if (kind === 3) {
    const wanted = new Uint8Array(length);
    wanted.set(expected.subarray(offset, offset + length));
    assertSameBytes(await readAt(file, offset, length), wanted, `read ${length} at ${offset}`);
  } else await file.discard(rangeAt(offset, length));
  if (kind === 0) expected.set(bytes, offset);
  else if (kind === 1 || kind === 4) expected.fill(0, offset, offset + length);
  else if (kind === 2) {
    const from = FILE_BYTES - offset;
    expected.fill(0, offset, offset + length).set(content.subarray(from, from + length), offset);
  }
  return `${['write', 'writeZeroes', 'copy', 'read', 'discard'][kind]} ${length} at ${offset}`;
}

/** What must work within a length that never changes: block devices and exports of servers have one. */
export const fixedCases: readonly StorageCase[] = [
  {
    id: 'fixed/agrees-with-a-flat-model',
    because: 'what no case thought of, within the length of the file',
    needs: ['write'],
    run: async (subject, context) => {
      const [expected, content] = [context.bytes(FILE_BYTES), context.bytes(FILE_BYTES)];
      let file = await createWith(subject, expected);
      await using source = await createWith(subject, content, 'source');
      const done: string[] = [];
      try {
        for (let step = 1; step <= OPERATIONS; step++) {
          done.push(await operate(file, expected, source, content, context));
          if (step % 20 > 0) continue;
          assertSameBytes(await contentOf(file), expected, `after ${done.slice(-20).join('; ')}`);
          await file.flush('kit: before it is closed');
          await file[Symbol.asyncDispose]();
          file = await subject.backend.open(pathOf(subject, 'file'), 'write');
        }
        assertSameBytes(await contentOf(file), expected, 'after it was opened again');
      } finally {
        await file[Symbol.asyncDispose]();
      }
    },
  },
  {
    id: 'fixed/large',
    because: 'all of it is moved, however many system calls or requests that takes',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = new Uint8Array((5 << 20) + 2 * BLOCK_BYTES);
      await using file = await createWith(subject, expected);
      await using target = await createWith(
        subject,
        nonZeroBytes(context, expected.length),
        'target',
      );
      const bytes = nonZeroBytes(context, (5 << 20) + 4097);
      await file.write(hostOffset(333), bytes);
      expected.set(bytes, 333);
      assertSameBytes(await contentOf(file), expected, 'the file');
      await copy(target, file, 0, 0, expected.length);
      assertSameBytes(await contentOf(target), expected, 'the copy');
    },
  },
  {
    id: 'fixed/changes-beside-each-other',
    because: 'two changes that meet in one block of the device must not lose one another',
    needs: ['write'],
    run: async (subject, context) => {
      const expected = nonZeroBytes(context, FILE_BYTES);
      await using file = await createWith(subject, expected);
      for (let round = 0; round < 10; round++) {
        const zeros = Array.from({ length: SLOTS }, () => context.random() < 0.3);
        await Promise.all(
          zeros.map(async (zero, index) => {
            const at = index * SLOT_BYTES;
            const bytes = zero ? new Uint8Array(SLOT_BYTES) : nonZeroBytes(context, SLOT_BYTES);
            expected.set(bytes, at);
            if (zero) await file.writeZeroes(rangeAt(at, SLOT_BYTES));
            else await file.write(hostOffset(at), bytes);
          }),
        );
        assertSameBytes(await contentOf(file), expected, `round ${round}`);
      }
    },
  },
  {
    id: 'fixed/read-through-another-open',
    because: 'one image may be open twice: as base for writing, as backing file for reading',
    needs: ['write'],
    run: async (subject, context) => {
      await using writer = await createWith(subject, context.bytes(2 * BLOCK_BYTES));
      await using reader = await subject.backend.open(pathOf(subject, 'file'), 'read');
      const before = await contentOf(reader);
      const later = context.bytes(500);
      before.set(later, 2800);
      await writer.write(hostOffset(2800), later);
      await writer.flush('kit: seen by others');
      assertSameBytes(await contentOf(reader), before, 'what the other one wrote');
    },
  },
];
