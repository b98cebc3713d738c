import assert from 'node:assert/strict';
import type { StorageLock } from '../backend.ts';
import {
  conflictOf,
  LOSER,
  type LockRequest,
  PERMISSIONS,
  type Permission,
  READER,
  WRITER,
} from '../lock.ts';
import {
  assertRefused,
  hookOf,
  MAKES_FILES,
  openWith,
  pathOf,
  type StorageCase,
  type StorageSubject,
} from './subject.ts';

const NAMED = { READER, WRITER, LOSER };
/** Pairs of random requests that are tried. */
const PAIRS = 24;
/** Random requests that one lock becomes. */
const CHANGES = 6;

function lock(subject: StorageSubject, request: LockRequest, name = 'file'): Promise<StorageLock> {
  return subject.backend.lock(pathOf(subject, name), request);
}

/** Passes when `second` can be had beside `first` exactly when they do not conflict, in words of the contract. */
async function assertPair(
  subject: StorageSubject,
  first: LockRequest,
  second: LockRequest,
  what: string,
): Promise<void> {
  await using _held = await lock(subject, first);
  if (conflictOf(second, first) === null) {
    await using _both = await lock(subject, second);
    return;
  }
  const refused = await assertRefused('STORAGE_LOCKED', what, () => lock(subject, second));
  assert.equal(refused.details['file'], pathOf(subject, 'file'), 'the error names the file');
}

async function makeFile(subject: StorageSubject, name = 'file'): Promise<void> {
  await (await openWith(subject, new Uint8Array(0), name))[Symbol.asyncDispose]();
}

/** What excludes what. */
const excluding: readonly StorageCase[] = [
  {
    id: 'lock/readers-share-and-writers-do-not',
    because: 'two commits into one base, or a commit beneath a running machine, ruin it',
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      for (const [one, first] of Object.entries(NAMED))
        for (const [other, second] of Object.entries(NAMED))
          await assertPair(subject, first, second, `${other} beside ${one}`);
    },
  },
  {
    id: 'lock/each-permission-by-itself',
    because: 'other programs take and forbid them in other combinations',
    needs: ['locks'],
    run: async (subject, { random }) => {
      await makeFile(subject);
      const some = (): Permission[] => PERMISSIONS.filter(() => random() < 0.4);
      for (let pair = 0; pair < PAIRS; pair++) {
        const [first, second] = [0, 1].map(() => ({ takes: some(), forbids: some() }));
        const what = JSON.stringify([first, second]);
        await assertPair(subject, first as LockRequest, second as LockRequest, what);
      }
    },
  },
  {
    id: 'lock/of-one-file-is-not-of-another',
    because: 'jobs on other chains go on',
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      await makeFile(subject, 'other');
      await using _one = await lock(subject, WRITER);
      await using _other = await lock(subject, WRITER, 'other');
    },
  },
];

/** How long it is held, and of what. */
const holding: readonly StorageCase[] = [
  {
    id: 'lock/is-over-when-disposed-of',
    because: 'the next job must not wait for the process to end',
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      for (let turn = 0; turn < 3; turn++)
        await (await lock(subject, WRITER))[Symbol.asyncDispose]();
      await using _last = await lock(subject, LOSER);
    },
  },
  {
    id: 'lock/is-over-once',
    because: 'who lets go twice must not let go what the next one holds',
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      const first = await lock(subject, WRITER);
      await first[Symbol.asyncDispose]();
      await using _next = await lock(subject, WRITER);
      await first[Symbol.asyncDispose]();
      await assertRefused('STORAGE_LOCKED', 'a third', () => lock(subject, WRITER));
    },
  },
  {
    id: 'lock/refused-leaves-nothing',
    because: 'who was refused must not stand in the way of others',
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      {
        await using _reader = await lock(subject, READER);
        await assertRefused('STORAGE_LOCKED', 'a writer beside a reader', () =>
          lock(subject, WRITER),
        );
        await using _second = await lock(subject, READER);
      }
      await using _writer = await lock(subject, WRITER);
    },
  },
  {
    id: 'lock/outlives-other-opens',
    because: 'locks of processes (fcntl F_SETLK) end when any descriptor of the file is closed',
    needs: ['write', 'locks'],
    run: async (subject) => {
      await makeFile(subject);
      await using _writer = await lock(subject, WRITER);
      for (const mode of ['read', 'write'] as const)
        await (await subject.backend.open(pathOf(subject, 'file'), mode))[Symbol.asyncDispose]();
      await assertRefused('STORAGE_LOCKED', 'a second writer', () => lock(subject, WRITER));
    },
  },
  {
    id: 'lock/goes-with-the-file',
    because: 'an image that was renamed is still in use, and another one of its name is not',
    needs: [...MAKES_FILES, 'locks'],
    run: async (subject) => {
      await makeFile(subject);
      await using held = await lock(subject, WRITER);
      await subject.backend.rename(pathOf(subject, 'file'), pathOf(subject, 'moved'));
      await makeFile(subject);
      await using _new = await lock(subject, WRITER);
      await assertRefused('STORAGE_LOCKED', 'by its new name', () =>
        lock(subject, WRITER, 'moved'),
      );
      const { identity } = await subject.backend.facts(pathOf(subject, 'moved'));
      assert.deepEqual(held.identity, identity, 'the identity of what is locked');
    },
  },
  {
    id: 'lock/is-of-the-file-by-any-name',
    because: 'an image reached through a link is the same image',
    needs: [...MAKES_FILES, 'locks', 'links'],
    run: async (subject) => {
      await makeFile(subject);
      const path = pathOf(subject, 'file');
      await hookOf(subject, 'link')(path, pathOf(subject, 'linked'));
      await hookOf(subject, 'symbolicLink')(path, pathOf(subject, 'pointed'));
      await using _held = await lock(subject, WRITER);
      for (const name of ['linked', 'pointed'])
        await assertRefused('STORAGE_LOCKED', name, () => lock(subject, READER, name));
    },
  },
  {
    id: 'lock/changes-while-it-is-held',
    because:
      'a job beneath a disk in use writes a layer that was only read, and then lets others read it again',
    needs: ['locks'],
    run: async (subject, { random }) => {
      await makeFile(subject);
      await using held = await lock(subject, READER);
      const some = (): Permission[] => PERMISSIONS.filter(() => random() < 0.4);
      const drawn = Array.from({ length: CHANGES }, () => ({ takes: some(), forbids: some() }));
      for (const now of [WRITER, LOSER, READER, { takes: [], forbids: [] }, ...drawn]) {
        await held.change(now);
        for (const other of [WRITER, { takes: some(), forbids: some() }]) {
          const what = JSON.stringify([now, other]);
          if (conflictOf(other, now) === null)
            await (await lock(subject, other))[Symbol.asyncDispose]();
          else await assertRefused('STORAGE_LOCKED', what, () => lock(subject, other));
        }
      }
    },
  },
  {
    id: 'lock/stays-when-a-change-is-refused',
    because:
      "whoever may not write must go on reading, undisturbed, and stand in nobody else's way",
    needs: ['locks'],
    run: async (subject) => {
      await makeFile(subject);
      await using held = await lock(subject, READER);
      {
        await using _other = await lock(subject, READER);
        for (const takes of [LOSER.takes, []])
          await assertRefused('STORAGE_LOCKED', 'nobody else reads, beside a reader', () =>
            held.change({ takes, forbids: LOSER.forbids }),
          );
        await using _third = await lock(subject, READER);
      }
      for (const other of [WRITER, LOSER])
        await assertRefused('STORAGE_LOCKED', 'beside it', () => lock(subject, other));
    },
  },
  {
    id: 'lock/needs-a-file',
    because: 'nothing is created, and nothing waited for, by looking who uses it',
    needs: [...MAKES_FILES, 'locks'],
    run: async (subject) => {
      await assertRefused('STORAGE_NOT_FOUND', 'a missing file', () => lock(subject, READER));
      await assertRefused('STORAGE_NOT_REGULAR', 'a directory', () =>
        subject.backend.lock(subject.directory, READER),
      );
      assert.deepEqual(await subject.backend.list(subject.directory), [], 'files');
    },
  },
];

export const lockCases: readonly StorageCase[] = [...excluding, ...holding];
