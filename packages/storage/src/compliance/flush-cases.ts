import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import type { StorageBackend } from '../backend.ts';
import type { Storage } from '../storage.ts';
import {
  assertRefused,
  contentOf,
  copy,
  createFile,
  createWith,
  hookOf,
  MAKES_FILES,
  pathOf,
  rangeAt,
  readAt,
  type StorageCase,
  type StorageSubject,
} from './subject.ts';

/** Everything that must be refused once a flush has failed. */
async function assertPoisoned(file: Storage, source: Storage): Promise<void> {
  const refused = (what: string, action: () => Promise<unknown>): Promise<unknown> =>
    assertRefused('STORAGE_FLUSH_FAILED', `${what} after a failed flush`, action);
  await refused('flush', () => file.flush('kit: again'));
  await refused('write', () => file.write(hostOffset(0), new Uint8Array(10)));
  await refused('writeZeroes', () => file.writeZeroes(rangeAt(0, 10)));
  await refused('copyFrom', () => copy(file, source, 0, 0, 10));
  if (file.supports.resize) await refused('setLength', () => file.setLength(0 as never));
  if (file.supports.discard) await refused('discard', () => file.discard(rangeAt(0, 10)));
}

const failures: readonly StorageCase[] = [
  {
    id: 'flush/failure-is-final',
    because:
      'kernels mark the pages clean after a failed fsync, so that the next one succeeds although bytes are lost (Rebello, ATC 2020)',
    needs: ['write', 'flush-fault'],
    run: async (subject, context) => {
      const bytes = context.bytes(5000);
      await using file = await createWith(subject, bytes);
      await using source = await createWith(subject, context.bytes(10), 'source');
      hookOf(subject, 'failNextFlush')();
      await assertRefused('STORAGE_FLUSH_FAILED', 'the flush', () => file.flush('kit: failing'));
      await assertPoisoned(file, source);
      assertSameBytes(await contentOf(file), bytes, 'the file, still readable');
      await source.flush('kit: another file is not concerned');
    },
  },
  {
    id: 'flush/failure-reaches-all-under-way',
    because: 'the system reports a lost write once; the flush beside it would succeed',
    needs: ['write', 'flush-fault'],
    run: async (subject, context) => {
      await using file = await createWith(subject, context.bytes(5000));
      hookOf(subject, 'failNextFlush')();
      const both = await Promise.allSettled([file.flush('kit: first'), file.flush('kit: second')]);
      assert.deepEqual(
        both.map(({ status }) => status),
        ['rejected', 'rejected'],
      );
    },
  },
];

/** The subject's file after a power cut; null when its name is gone. */
async function afterPowerCut(
  subject: StorageSubject,
  name: string,
  look: (backend: StorageBackend) => Promise<void>,
): Promise<void> {
  const backend = await hookOf(subject, 'cutPower')();
  try {
    await look(backend);
  } catch (cause) {
    throw new Error(`after the power cut, ${name}: ${(cause as Error).message}`, { cause });
  }
}

const powerCuts: readonly StorageCase[] = [
  {
    id: 'power-cut/flushed-bytes-survive',
    because: 'every ordering rule of the formats and of the journal rests on it',
    needs: [...MAKES_FILES, 'power-cut'],
    run: async (subject, context) => {
      const bytes = context.bytes(9000);
      await using file = await createWith(subject, bytes);
      await file.flush('kit: bytes');
      await subject.backend.flushDirectory(subject.directory, 'kit: name');
      await file.write(hostOffset(4000), context.bytes(100));
      await afterPowerCut(subject, 'flushed bytes', async (backend) => {
        await using again = await backend.open(pathOf(subject, 'file'), 'read');
        assert.equal(await again.length(), 9000, 'length');
        assertSameBytes(
          await readAt(again, 0, 4000),
          bytes.subarray(0, 4000),
          'before the later write',
        );
        assertSameBytes(await readAt(again, 4100, 4900), bytes.subarray(4100), 'after it');
      });
    },
  },
  {
    id: 'power-cut/flushed-names-survive',
    because: 'a journal that exists only until the power goes is none',
    needs: [...MAKES_FILES, 'power-cut'],
    run: async (subject, context) => {
      for (const name of ['moved', 'removed', 'replaced']) {
        await using file = await createWith(subject, context.bytes(10), name);
        await file.flush('kit: bytes');
      }
      const { backend, directory } = subject;
      await backend.flushDirectory(directory, 'kit: names');
      await backend.rename(pathOf(subject, 'moved'), pathOf(subject, 'replaced'));
      await backend.remove(pathOf(subject, 'removed'));
      await using _new = await createFile(subject, 'new');
      await backend.flushDirectory(directory, 'kit: names again');
      await afterPowerCut(subject, 'flushed names', async (again) => {
        const names = (await again.list(directory)).map(({ name }) => name);
        assert.deepEqual(names.toSorted(), ['new', 'replaced']);
      });
    },
  },
];

export const flushCases: readonly StorageCase[] = [
  {
    id: 'flush/keeps-what-was-written',
    because: 'a barrier changes nothing but durability',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const bytes = context.bytes(5000);
      await using file = await createWith(subject, bytes);
      await file.flush('kit: first');
      await file.flush('kit: nothing new');
      assertSameBytes(await contentOf(file), bytes, 'the file');
      await subject.backend.flushDirectory(subject.directory, 'kit: directory');
    },
  },
  {
    id: 'flush/of-a-missing-directory-is-refused',
    because: 'names that could not be made durable are no success',
    needs: MAKES_FILES,
    run: async (subject) => {
      await assertRefused('STORAGE_NOT_FOUND', 'flushDirectory', () =>
        subject.backend.flushDirectory(pathOf(subject, 'missing'), 'kit: missing'),
      );
    },
  },
  ...failures,
  ...powerCuts,
];
