import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import { READER } from '../lock.ts';
import {
  assertRefused,
  contentOf,
  createWith,
  nonZeroBytes,
  openWith,
  pathOf,
  rangeAt,
  type StorageCase,
} from './subject.ts';

/** What must be refused, loudly and with nothing done, where it is absent. */
export const absentCases: readonly StorageCase[] = [
  {
    id: 'grow/refused-when-absent',
    because: 'an image that cannot grow is full; half a table written at its end is a torn one',
    needs: ['write'],
    whenAbsent: 'grow',
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 9000);
      await using file = await createWith(subject, bytes);
      const changes = {
        write: () => file.write(hostOffset(8900), new Uint8Array(101)),
        'write past the end': () => file.write(hostOffset(9000), new Uint8Array(1)),
        writeZeroes: () => file.writeZeroes(rangeAt(100, 9000)),
      };
      for (const [name, change] of Object.entries(changes))
        await assertRefused('STORAGE_NO_SPACE', name, change);
      await file.flush('kit: nothing has failed');
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'write/refused-when-absent',
    because: 'who opens for writing must hear at once that nothing can be written',
    whenAbsent: 'write',
    run: async (subject, context) => {
      const path = pathOf(subject, 'file');
      await subject.hooks?.place?.(path, context.bytes(100));
      await assertRefused('STORAGE_UNSUPPORTED', 'open to write', () =>
        subject.backend.open(path, 'write'),
      );
    },
  },
  {
    id: 'names/refused-when-absent',
    because: 'a journal that was not made, or a list that is empty, must not pass for success',
    whenAbsent: 'names',
    run: async (subject, context) => {
      const { backend, directory } = subject;
      const [path, other] = [pathOf(subject, 'file'), pathOf(subject, 'other')];
      await subject.hooks?.place?.(path, context.bytes(100));
      const operations = {
        create: () => backend.create(other, { secret: true }),
        remove: () => backend.remove(path),
        rename: () => backend.rename(path, other),
        list: () => backend.list(directory),
        flushDirectory: () => backend.flushDirectory(directory, 'kit: names'),
      };
      for (const [name, operation] of Object.entries(operations))
        await assertRefused('STORAGE_UNSUPPORTED', name, operation);
      assert.equal((await backend.facts(path)).length, 100, 'length of the file, still there');
    },
  },
  {
    id: 'lock/refused-when-absent',
    because: 'a lock that excludes nobody would let two jobs ruin one image',
    whenAbsent: 'locks',
    run: async (subject, context) => {
      await using _file = await openWith(subject, context.bytes(100));
      await assertRefused('STORAGE_UNSUPPORTED', 'lock', () =>
        subject.backend.lock(pathOf(subject, 'file'), READER),
      );
    },
  },
  {
    id: 'facts/unknown-are-what-they-say',
    because: 'callers must be able to tell that space in use is not known',
    whenAbsent: 'allocated',
    run: async (subject, context) => {
      await using _file = await openWith(subject, context.bytes(5000));
      assert.equal((await subject.backend.facts(pathOf(subject, 'file'))).allocated, 5000);
    },
  },
];
