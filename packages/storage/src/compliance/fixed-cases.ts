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

const FILE_BYTES = 200_000;
const OPERATIONS = 300;
const SLOTS = 20;
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
      const length = (5 << 20) + 4097;
      const bytes = nonZeroBytes(context, length);
      await using file = await createWith(subject, new Uint8Array(333 + length));
      await using target = await createWith(subject, bytes.toReversed(), 'target');
      await file.write(hostOffset(333), bytes);
      const expected = new Uint8Array(333 + length);
      expected.set(bytes, 333);
      assertSameBytes(await contentOf(file), expected, 'the file');
      await copy(target, file, 333, 0, length);
      assertSameBytes(await contentOf(target), bytes, 'the copy');
    },
  },
  {
    id: 'fixed/changes-beside-each-other',
    because: 'two changes that meet in one block of the device must not lose one another',
    needs: ['write'],
    run: async (subject, context) => {
      const slot = FILE_BYTES / SLOTS - 7;
      await using file = await createWith(subject, nonZeroBytes(context, SLOTS * slot));
      for (let round = 0; round < 10; round++) {
        const expected = nonZeroBytes(context, SLOTS * slot);
        const zeros = Array.from({ length: SLOTS }, () => context.random() < 0.3);
        await Promise.all(
          zeros.map(async (zero, index) => {
            const bytes = expected.subarray(index * slot, (index + 1) * slot);
            if (!zero) return await file.write(hostOffset(index * slot), bytes);
            bytes.fill(0);
            await file.writeZeroes(rangeAt(index * slot, slot));
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
      await using writer = await createWith(subject, context.bytes(9000));
      await using reader = await subject.backend.open(pathOf(subject, 'file'), 'read');
      const before = await readAt(reader, 0, 9000);
      const later = context.bytes(500);
      before.set(later, 2800);
      await writer.write(hostOffset(2800), later);
      await writer.flush('kit: seen by others');
      assertSameBytes(await contentOf(reader), before, 'what the other one wrote');
    },
  },
];
