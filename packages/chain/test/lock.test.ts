import { LOSER, READER, type StorageBackend, type StorageLock, WRITER } from '@downfold/storage';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { defaultPolicy, lockImages, openChain } from '../src/index.ts';
import { diskOf, environmentOn, expectRefusal, over, plain } from './support.ts';

const LAYERS = { '/p/a': plain, '/p/b': over('a') };

/** A backend on which every lock is as on a network file system. */
function remote(backend: StorageBackend): StorageBackend {
  return {
    ...backend,
    lock: async (path, request): Promise<StorageLock> => ({
      ...(await backend.lock(path, request)),
      remote: true,
    }),
  };
}

describe('an open chain', () => {
  test('is locked for reading, each layer, until it is closed', async () => {
    const disk = await diskOf(LAYERS);
    const backend = memoryBackend(disk);
    {
      await using _chain = await openChain('/p/b', 'toy', environmentOn(disk));
      for (const path of ['/p/a', '/p/b']) {
        await expectRefusal(backend.lock(path, WRITER), 'STORAGE_LOCKED', path);
        await using _reader = await backend.lock(path, READER);
      }
    }
    for (const path of ['/p/a', '/p/b']) {
      await using _all = await backend.lock(path, LOSER);
    }
  });

  test('is refused while another writes one of its layers; what was opened is let go', async () => {
    const disk = await diskOf(LAYERS);
    const backend = memoryBackend(disk);
    {
      await using _writer = await backend.lock('/p/a', WRITER);
      await expectRefusal(openChain('/p/b', 'toy', environmentOn(disk)), 'STORAGE_LOCKED', '/p/a');
    }
    for (const path of ['/p/a', '/p/b']) {
      await using _all = await backend.lock(path, LOSER);
    }
  });

  test('is not locked when the policy wants none', async () => {
    const disk = await diskOf(LAYERS);
    const policy = { ...defaultPolicy, locks: 'none' } as const;
    await using _writer = await memoryBackend(disk).lock('/p/a', WRITER);
    await using _chain = await openChain('/p/b', 'toy', environmentOn(disk, { policy }));
  });

  test('where locks may exclude nobody, only when the policy says so', async () => {
    const disk = await diskOf(LAYERS);
    const backend = remote(memoryBackend(disk));
    await expectRefusal(
      openChain('/p/b', 'toy', environmentOn(disk, { backend })),
      'CHAIN_REMOTE_LOCK',
      '--lock ofd',
    );
    const policy = { ...defaultPolicy, locks: 'everywhere' } as const;
    await using _chain = await openChain('/p/b', 'toy', environmentOn(disk, { backend, policy }));
    await expectRefusal(backend.lock('/p/a', WRITER), 'STORAGE_LOCKED', '/p/a');
  });
});

describe('locks of several images', () => {
  const wanted = ['/p/c', '/p/a', '/p/gone', '/p/b'].map((path) => ({ path, request: WRITER }));

  test('are taken in the order given; what is gone is left out', async () => {
    const disk = await diskOf({ ...LAYERS, '/p/c': plain });
    const order: string[] = [];
    const inner = memoryBackend(disk);
    const backend: StorageBackend = {
      ...inner,
      lock: async (path, request) => {
        order.push(path);
        return inner.lock(path, request);
      },
    };
    await using _locks = await lockImages(wanted, environmentOn(disk, { backend }));
    expect(order).toEqual(['/p/c', '/p/a', '/p/b']);
  });

  test('are all or none, and one may be let go before the others', async () => {
    const disk = await diskOf({ ...LAYERS, '/p/c': plain });
    const backend = memoryBackend(disk);
    {
      await using _reader = await backend.lock('/p/b', READER);
      await expectRefusal(lockImages(wanted, environmentOn(disk)), 'STORAGE_LOCKED', '/p/b');
      await using _free = await backend.lock('/p/a', LOSER);
    }
    {
      await using locks = await lockImages(wanted, environmentOn(disk));
      await locks.release('/p/a');
      await using _free = await backend.lock('/p/a', LOSER);
      await expectRefusal(backend.lock('/p/b', READER), 'STORAGE_LOCKED', '/p/b');
    }
    await using _after = await backend.lock('/p/b', LOSER);
  });

  test('can each be raised and lowered while they are held', async () => {
    const disk = await diskOf({ ...LAYERS, '/p/c': plain });
    const backend = memoryBackend(disk);
    const readers = wanted.map(({ path }) => ({ path, request: READER }));
    await using locks = await lockImages(readers, environmentOn(disk));
    expect(await locks.change('/p/a', LOSER)).toEqual(READER);
    await expectRefusal(backend.lock('/p/a', READER), 'STORAGE_LOCKED', '/p/a');
    await using _beside = await backend.lock('/p/b', READER);
    await expectRefusal(locks.change('/p/b', LOSER), 'STORAGE_LOCKED', '/p/b');
    expect(await locks.change('/p/b', READER)).toEqual(READER);
    expect(await locks.change('/p/a', READER)).toEqual(LOSER);
    await using _free = await backend.lock('/p/a', READER);
    expect(await locks.change('/p/gone', LOSER)).toBeNull();
  });
});
