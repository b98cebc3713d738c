import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength } from '@downfold/units';
import { expect, test, vi } from 'vitest';
import { BARRIER } from '../src/barriers.ts';
import { qcow2 } from '../src/index.ts';
import { openOn, range } from './support.ts';

const GIB = 2 ** 30;

const CHANGES = ['deallocate', 'writeZeroes'] as const;

// What is dirty goes to the file meanwhile: neither all tables of a large disk nor all that is let go stays in memory.
test.each(CHANGES)(
  '%s of a large disk flushes as it goes',
  async (how) => {
    const disk = new MemoryDisk();
    {
      const storage = await memoryBackend(disk).create('/image', { secret: false });
      // clusters of 64 KiB: 560 tables of 512 MiB each, 35 MiB of them, of which 16 may wait
      const virtualSize = byteLength(280 * GIB);
      await using image = await qcow2.create(storage, { virtualSize, preallocation: 'metadata' });
      await image.flush();
    }
    await using image = await openOn(disk, '/image', 'write');
    const flush = vi.spyOn(image.file, 'flush');
    await (how === 'deallocate'
      ? image.deallocate(range(0, 280 * GIB))
      : image.writeZeroes(range(0, 280 * GIB), { fill: null }));
    // one may come at the end of the change
    const mapped = flush.mock.calls.filter(([barrier]) => barrier === BARRIER.mapping);
    expect(mapped.length).toBeGreaterThan(1);
    await image.flush();
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 0 });
  },
  120_000,
);
