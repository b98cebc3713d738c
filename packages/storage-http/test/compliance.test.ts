import { type SubjectFactory, verify } from '@downfold/compliance';
import { type StorageAbility, type StorageSubject, storageKit } from '@downfold/storage/compliance';
import { describe, test } from 'vitest';
import { httpBackend } from '../src/index.ts';
import { type RangeServer, rangeServer } from './range-server.ts';

/** Files of a server; one that is put there gets a path. */
function filesOf(
  validator: RangeServer['validator'],
): SubjectFactory<StorageSubject & AsyncDisposable, StorageAbility> {
  return {
    abilities: new Set(['locks', 'modified']),
    create: async () => {
      const server = await rangeServer();
      server.validator = validator;
      return {
        backend: httpBackend(),
        directory: `${server.origin}/images`,
        hooks: {
          place: async (path, bytes) =>
            void server.files.set(path.slice(server.origin.length), bytes.slice()),
        },
        [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
      };
    },
  };
}

describe('files behind HTTP pass the storage kit', () => {
  verify(storageKit, filesOf('etag'), test);
});

describe('also when they are known by their date', () => {
  verify(storageKit, filesOf('last-modified'), test);
});
