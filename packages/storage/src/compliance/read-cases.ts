import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import {
  contentOf,
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  openWith,
  pathOf,
  readAt,
  type StorageCase,
} from './subject.ts';

/** Longer than any buffer that an implementation is likely to cut reads at, and odd. */
const LARGE_BYTES = (3 << 20) + 4097;

export const readCases: readonly StorageCase[] = [
  {
    id: 'read/what-was-written',
    because: 'every layer above takes bytes for what was written there',
    run: async (subject, context) => {
      const bytes = context.bytes(20_000);
      await using file = await openWith(subject, bytes);
      for (const offset of [0, 1, 511, 512, 4095, 4096, 12_345])
        for (const length of [1, 511, 512, 513, 4096, 7000])
          assertSameBytes(
            await readAt(file, offset, length),
            bytes.slice(offset, offset + length),
            `${length} bytes at ${offset}`,
          );
    },
  },
  {
    id: 'read/past-end-is-zero',
    because: 'a short backing file reads as zeros past its end, whatever the buffer held before',
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1000);
      await using file = await openWith(subject, bytes);
      const across = new Uint8Array(600);
      across.set(bytes.subarray(900));
      assertSameBytes(await readAt(file, 900, 600), across, 'a read across the end');
      for (const offset of [1000, 1001, 4096, 1_000_000])
        assertSameBytes(
          await readAt(file, offset, 300),
          new Uint8Array(300),
          `a read at ${offset}, past the end`,
        );
    },
  },
  {
    id: 'read/empty-file-is-zero',
    because: 'a new image may be read before anything is in it',
    run: async (subject) => {
      await using file = await openWith(subject, new Uint8Array(0));
      assertSameBytes(await readAt(file, 0, 5000), new Uint8Array(5000), 'the empty file');
    },
  },
  {
    id: 'read/hole-is-zero',
    because: 'formats leave clusters unwritten and rely on zeros there',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createFile(subject);
      await file.write(hostOffset(100_000), context.bytes(10));
      assertSameBytes(await readAt(file, 0, 100_000), new Uint8Array(100_000), 'the hole');
    },
  },
  {
    id: 'read/large',
    because: 'one read fills its buffer, however many system calls that takes',
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, LARGE_BYTES);
      await using file = await openWith(subject, bytes);
      assertSameBytes(await readAt(file, 0, LARGE_BYTES), bytes, 'one large read');
      const rest = new Uint8Array(200_000);
      rest.set(bytes.subarray(LARGE_BYTES - 100_000));
      assertSameBytes(
        await readAt(file, LARGE_BYTES - 100_000, 200_000),
        rest,
        'a large read across the end',
      );
    },
  },
  {
    id: 'read/fills-only-its-view',
    because: 'callers read into parts of larger buffers',
    run: async (subject, context) => {
      const bytes = context.bytes(5000);
      await using file = await openWith(subject, bytes);
      const buffer = new Uint8Array(9000).fill(0xee);
      await file.read(hostOffset(1000), buffer.subarray(100, 8100));
      const expected = new Uint8Array(9000).fill(0xee).fill(0, 100, 8100);
      expected.set(bytes.subarray(1000), 100);
      assertSameBytes(buffer, expected, 'the buffer around the view');
    },
  },
  {
    id: 'read/no-bytes',
    because: 'an empty range is no special case for callers',
    run: async (subject) => {
      await using file = await openWith(subject, new Uint8Array(0));
      await file.read(hostOffset(12_345), new Uint8Array(0));
    },
  },
  {
    id: 'read/through-another-open',
    because: 'one image may be open twice: as base for writing, as backing file for reading',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using writer = await createWith(subject, context.bytes(3000));
      await using reader = await subject.backend.open(pathOf(subject, 'file'), 'read');
      const later = context.bytes(500);
      await writer.write(hostOffset(2800), later);
      assertSameBytes(await readAt(reader, 2800, 500), later, 'what the other one wrote');
      assertSameBytes(await contentOf(reader), await contentOf(writer), 'the whole file');
    },
  },
];
