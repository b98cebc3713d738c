import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import {
  assertRefused,
  contentOf,
  createFile,
  createWith,
  hookOf,
  MAKES_FILES,
  pathOf,
  type StorageCase,
} from './subject.ts';

/** Spaces, quotes, letters beyond ASCII, a line break, a backslash, and 200 bytes. */
const UNUSUAL_NAMES = [
  'a b',
  `"it's"`,
  'größe–尺寸',
  'line\nbreak',
  'back\\slash',
  'n'.repeat(200),
];

const create: readonly StorageCase[] = [
  {
    id: 'create/makes-an-empty-file',
    because: 'images and journals begin so',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createFile(subject);
      assert.equal(file.writable, true, 'writable');
      assert.equal(await file.length(), 0, 'length');
      assert.ok(file.label.includes('file'), `the label '${file.label}' names the file`);
      assertSameBytes(await contentOf(file), context.bytes(0), 'the file');
    },
  },
  {
    id: 'create/is-exclusive',
    because: 'two jobs must not share a journal, and no image is overwritten',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using file = await createWith(subject, bytes);
      for (const secret of [false, true])
        await assertRefused('STORAGE_EXISTS', 'create over a file', () =>
          subject.backend.create(pathOf(subject, 'file'), { secret }),
        );
      await assertRefused('STORAGE_EXISTS', 'create over a directory', () =>
        subject.backend.create(subject.directory, { secret: false }),
      );
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'create/one-of-many-wins',
    because: 'two jobs may start at the same moment',
    needs: MAKES_FILES,
    run: async (subject) => {
      const tries = await Promise.allSettled(
        Array.from({ length: 8 }, () => createFile(subject, 'contested')),
      );
      for (const one of tries)
        if (one.status === 'fulfilled') await one.value[Symbol.asyncDispose]();
      const won = tries.filter(({ status }) => status === 'fulfilled').length;
      assert.equal(won, 1, 'creations that succeeded');
    },
  },
  {
    id: 'create/needs-its-directory',
    because: 'a directory is not made by the way, where nobody flushes it',
    needs: MAKES_FILES,
    run: async (subject) => {
      await assertRefused('STORAGE_NOT_FOUND', 'create in a missing directory', () =>
        createFile(subject, 'missing/file'),
      );
    },
  },
  {
    id: 'create/secret-is-private',
    because: 'a journal names images that others need not know of',
    needs: [...MAKES_FILES, 'permissions'],
    run: async (subject) => {
      const othersMayRead = hookOf(subject, 'othersMayRead');
      for (const secret of [false, true]) {
        const path = pathOf(subject, secret ? 'secret' : 'open');
        await using _file = await subject.backend.create(path, { secret });
        assert.equal(await othersMayRead(path), !secret, `others may read, secret: ${secret}`);
      }
    },
  },
  {
    id: 'create/any-name',
    because: 'people name their images as they like',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      for (const name of UNUSUAL_NAMES) {
        const bytes = context.bytes(10);
        await (await createWith(subject, bytes, name))[Symbol.asyncDispose]();
        await using again = await subject.backend.open(pathOf(subject, name), 'read');
        assertSameBytes(await contentOf(again), bytes, JSON.stringify(name));
      }
      const names = (await subject.backend.list(subject.directory)).map(({ name }) => name);
      assert.deepEqual(names.toSorted(), UNUSUAL_NAMES.toSorted());
    },
  },
];

const open: readonly StorageCase[] = [
  {
    id: 'open/missing-is-not-found',
    because: 'whether there is a journal is asked by opening it',
    run: async (subject) => {
      const error = await assertRefused('STORAGE_NOT_FOUND', 'open to read', () =>
        subject.backend.open(pathOf(subject, 'missing'), 'read'),
      );
      assert.match(error.message, /missing/, 'the message names the file');
      assert.match(String(error.details['file']), /missing/, 'details.file names the file');
    },
  },
  {
    id: 'open/missing-is-not-made',
    because: 'a mistyped name of a base must not become an empty base',
    needs: ['write'],
    run: async (subject) => {
      for (const mode of ['write', 'read'] as const)
        await assertRefused('STORAGE_NOT_FOUND', `open to ${mode}`, () =>
          subject.backend.open(pathOf(subject, 'missing'), mode),
        );
    },
  },
  {
    id: 'open/directory-is-refused',
    because: 'only files and block devices hold images',
    needs: MAKES_FILES,
    run: async (subject) => {
      for (const mode of ['read', 'write'] as const)
        await assertRefused('STORAGE_NOT_REGULAR', `open to ${mode}`, () =>
          subject.backend.open(subject.directory, mode),
        );
    },
  },
  {
    id: 'open/special-file-is-refused',
    because: 'a FIFO under the name of a backing file must not hang or be read',
    needs: [...MAKES_FILES, 'special-files'],
    run: async (subject) => {
      await hookOf(subject, 'makeSpecial')(pathOf(subject, 'special'));
      for (const mode of ['read', 'write'] as const)
        await assertRefused('STORAGE_NOT_REGULAR', `open to ${mode}`, () =>
          subject.backend.open(pathOf(subject, 'special'), mode),
        );
    },
  },
];

const change: readonly StorageCase[] = [
  {
    id: 'remove/takes-the-name-away',
    because: 'a journal that is done must not be found again',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await (await createWith(subject, context.bytes(10)))[Symbol.asyncDispose]();
      await using other = await createWith(subject, context.bytes(10), 'other');
      await subject.backend.remove(pathOf(subject, 'file'));
      await assertRefused('STORAGE_NOT_FOUND', 'open after remove', () =>
        subject.backend.open(pathOf(subject, 'file'), 'read'),
      );
      await assertRefused('STORAGE_NOT_FOUND', 'remove again', () =>
        subject.backend.remove(pathOf(subject, 'file')),
      );
      assert.equal(await other.length(), 10, 'length of the other file');
      await using again = await createFile(subject);
      assert.equal(await again.length(), 0, 'length of a new file of that name');
    },
  },
  {
    id: 'rename/moves-the-name',
    because: 'what was written under one name is found under the other',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await (await createWith(subject, bytes, 'from'))[Symbol.asyncDispose]();
      await subject.backend.rename(pathOf(subject, 'from'), pathOf(subject, 'to'));
      await assertRefused('STORAGE_NOT_FOUND', 'open by the old name', () =>
        subject.backend.open(pathOf(subject, 'from'), 'read'),
      );
      await using file = await subject.backend.open(pathOf(subject, 'to'), 'read');
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'rename/replaces',
    because: 'a new version of a file takes the place of the old one in one step',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await (await createWith(subject, bytes, 'from'))[Symbol.asyncDispose]();
      await (await createWith(subject, context.bytes(2000), 'to'))[Symbol.asyncDispose]();
      await subject.backend.rename(pathOf(subject, 'from'), pathOf(subject, 'to'));
      await using file = await subject.backend.open(pathOf(subject, 'to'), 'read');
      assertSameBytes(await contentOf(file), bytes, 'the file');
      const names = (await subject.backend.list(subject.directory)).map(({ name }) => name);
      assert.deepEqual(names, ['to']);
    },
  },
  {
    id: 'rename/refused-changes-nothing',
    because: 'a name that is missing must not cost the one that exists',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using file = await createWith(subject, bytes);
      const { backend, directory } = subject;
      await assertRefused('STORAGE_NOT_FOUND', 'rename of a missing file', () =>
        backend.rename(pathOf(subject, 'missing'), pathOf(subject, 'file')),
      );
      await assertRefused('STORAGE_NOT_FOUND', 'rename into a missing directory', () =>
        backend.rename(pathOf(subject, 'file'), pathOf(subject, 'missing/file')),
      );
      await using again = await backend.open(pathOf(subject, 'file'), 'read');
      assertSameBytes(await contentOf(again), bytes, 'the file');
      assert.deepEqual(await backend.list(directory), [{ name: 'file', kind: 'file' }]);
      assert.deepEqual(again.identity, file.identity);
    },
  },
];

export const nameCases: readonly StorageCase[] = [...create, ...open, ...change];
