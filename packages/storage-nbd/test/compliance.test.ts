import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type SubjectFactory, verify } from '@downfold/compliance';
import { openBackend } from '@downfold/storage';
import {
  type StorageAbility,
  type StorageCase,
  type StorageSubject,
  storageKit,
} from '@downfold/storage/compliance';
import { faulty } from '@downfold/storage/faults';
import { describe, test } from 'vitest';
import { nbdBackendDriver } from '../src/index.ts';
import { exportDirectory, havePeers, scratch } from './support.ts';

/** Exports of nbdkit, which serves a directory; a file that is put there is an export. */
function exportsOf(
  abilities: readonly StorageAbility[],
  ...filters: readonly string[]
): SubjectFactory<StorageSubject & AsyncDisposable, StorageAbility> {
  return {
    abilities: new Set(abilities),
    create: async () => {
      const files = scratch();
      const server = await exportDirectory(files.directory, ...filters);
      const driver = faulty(nbdBackendDriver());
      return {
        backend: openBackend(driver),
        directory: server.uri,
        hooks: {
          place: async (path, bytes) =>
            writeFileSync(join(files.directory, path.slice(server.uri.length)), bytes),
          failNextFlush: () => driver.inject({ operation: 'flush' }),
        },
        async [Symbol.asyncDispose]() {
          await server[Symbol.asyncDispose]();
          files[Symbol.dispose]();
        },
      };
    },
  };
}

/** Cases whose files have lengths that are multiples of 4 KiB. */
const inBlocks: readonly StorageCase[] = storageKit.filter(({ id }) => id.startsWith('fixed/'));
const blocks = (minimum: number, maximum: number): string[] => [
  '--filter=blocksize-policy',
  'blocksize-error-policy=error',
  `blocksize-minimum=${minimum}`,
  `blocksize-preferred=${Math.max(minimum, 4096)}`,
  `blocksize-maximum=${maximum}`,
];

describe.skipIf(!havePeers)('exports of nbdkit pass the storage kit', () => {
  verify(storageKit, exportsOf(['write', 'locks', 'discard', 'flush-fault']), test);
});

describe.skipIf(!havePeers)('also without structured replies, zeros and trim', () => {
  const filters = ['--no-sr', '--filter=nozero', '--filter=fua'];
  verify(storageKit, exportsOf(['write', 'locks', 'flush-fault'], ...filters), test);
});

describe.skipIf(!havePeers).each([
  [512, 64 << 10],
  [4096, 32 << 20],
])('also with blocks of %i bytes, at most %i at once', (minimum, maximum) => {
  verify(inBlocks, exportsOf(['write', 'discard'], ...blocks(minimum, maximum)), test);
});

describe.skipIf(!havePeers)('also when answers come late and out of order', () => {
  const delays = ['--filter=delay', 'delay-read=3ms', 'delay-write=1ms'];
  const filters = [...blocks(512, 1 << 20), ...delays];
  const slow = inBlocks.filter(({ id }) => !id.includes('model'));
  verify(slow, exportsOf(['write', 'discard'], ...filters), test);
});
