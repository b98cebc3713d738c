import { type SubjectFactory, verify } from '@downfold/compliance';
import { openBackend } from '@downfold/storage';
import { type StorageAbility, type StorageSubject, storageKit } from '@downfold/storage/compliance';
import { faulty } from '@downfold/storage/faults';
import { describe, test } from 'vitest';
import {
  durableDisk,
  MemoryDisk,
  memoryBackend,
  memoryBackendDriver,
  record,
} from '../src/index.ts';

const abilities: ReadonlySet<StorageAbility> = new Set<StorageAbility>([
  'names',
  'write',
  'grow',
  'modified',
  'allocated',
  'discard',
  'resize',
  'locks',
  'sparse',
  'holes',
]);

/** A recording disk behind a faulty driver; a power cut leaves what is durable for certain. */
const recorded: SubjectFactory<StorageSubject, StorageAbility> = {
  abilities: new Set<StorageAbility>([...abilities, 'flush-fault', 'power-cut']),
  create: async () => {
    const disk = new MemoryDisk();
    disk.makeDirectory('/images/of/guests');
    const recording = record(disk);
    const driver = faulty(recording.driver);
    return {
      backend: openBackend(driver),
      directory: '/images/of/guests',
      hooks: {
        failNextFlush: () => driver.inject({ operation: 'flush' }),
        cutPower: async () => memoryBackend(durableDisk(recording)),
      },
    };
  },
};

describe('the backend in memory passes the storage kit', () => {
  const create = async () => ({ backend: memoryBackend(), directory: '/' });
  verify(storageKit, { abilities, create }, test);
});

describe('so does its driver behind a wrapper of one’s own', () => {
  const create = async () => ({
    backend: openBackend(memoryBackendDriver(new MemoryDisk())),
    directory: '/',
  });
  verify(storageKit, { abilities, create }, test);
});

describe('so does a disk that records, behind a faulty driver without rules', () => {
  verify(storageKit, recorded, test);
});

describe.each([2, 3, 4, 5, 6, 7, 8, 9])('random operations with seed %i', (seed) => {
  verify(
    storageKit.filter(({ id }) => id.startsWith('random/')),
    recorded,
    test,
    seed,
  );
});
