import { caseContext, perTier } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import {
  dump,
  haveQemu,
  openOn,
  range,
  readAll,
  sameByQemu,
  scratch,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const plain = { fill: null };

const shapes: readonly (readonly [string, Partial<Qcow2CreateOptions>])[] = [
  ['deflate', {}],
  ['two-bit refcounts', { refcountBits: 2, clusterSize: 4 * KIB }],
  ['zstd', { compression: 'zstd' }],
  ['version 2', { version: 2 }],
  ['512-byte clusters', { clusterSize: 512 }],
  ['2 MiB clusters, zstd', { clusterSize: 2048 * KIB, compression: 'zstd' }],
  ['subclusters', { extendedL2: true }],
  ['one-bit refcounts', { refcountBits: 1 }],
  ['64-bit refcounts', { refcountBits: 64, clusterSize: 4 * KIB }],
];

describe('writeCompressed', () => {
  test.each(shapes.slice(0, perTier({ quick: 3, ci: 9, long: 9 })))(
    '%s: read back, by QEMU too, and changed',
    async (_, options) => {
      const clusterSize = options.clusterSize ?? 64 * KIB;
      const size = Math.ceil((40 * Math.min(clusterSize, 128 * KIB) + 700) / 512) * 512;
      const disk = new MemoryDisk();
      const { bytes, integer } = caseContext(5);
      const model = new Uint8Array(size);
      {
        const storage = await memoryBackend(disk).create('/image', { secret: false });
        await using image = await qcow2.create(storage, {
          ...options,
          virtualSize: byteLength(size),
        });
        const clusters = Math.ceil(size / clusterSize);
        for (let turn = 0; turn < 12; turn++) {
          const first = integer(clusters);
          const at = first * clusterSize;
          const end = Math.min(size, (first + 1 + integer(6)) * clusterSize);
          const source = new Uint8Array(end - at);
          // what becomes much smaller, a little smaller, and not at all
          const random = bytes(Math.floor(source.length * ([0.05, 0.6, 1][turn % 3] as number)));
          source.fill(turn + 1);
          source.set(random);
          await image.writeCompressed(guestOffset(at), source);
          model.set(source, at);
          if (turn % 4 === 1) {
            const from = integer(size - 600);
            const patch = bytes(600);
            await image.write(guestOffset(from), patch, plain);
            model.set(patch, from);
          }
          if (turn % 5 === 2) {
            const gone = integer(clusters - 1) * clusterSize;
            const length = Math.min(clusterSize, size - gone);
            await image.deallocate(range(gone, length));
            model.fill(0, gone, gone + length);
          }
          expect(Buffer.compare(await readAll(image), model), `turn ${turn}`).toBe(0);
          if (turn % 3 === 1) await image.flush();
        }
        await image.flush();
        const report = await image.check();
        expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
        expect(report.compressedClusters).toBeGreaterThan(0);
      }
      await using again = await openOn(disk, '/image', 'read');
      expect(Buffer.compare(await readAll(again), model)).toBe(0);
      if (!haveQemu) return;
      using dir = scratch();
      dump(disk, '/image', dir.path('image.qcow2'));
      soundByQemu(dir.path('image.qcow2'));
      sameByQemu(dir.path('image.qcow2'), model);
    },
  );

  test('many small ones share host clusters', async () => {
    const storage = await memoryBackend(new MemoryDisk()).create('/image', { secret: false });
    await using image = await qcow2.create(storage, { virtualSize: byteLength(6400 * KIB) });
    await image.writeCompressed(guestOffset(0), new Uint8Array(6400 * KIB).fill(7));
    await image.flush();
    const { compressedClusters, imageEndOffset } = await image.check();
    expect(compressedClusters).toBe(100);
    expect(imageEndOffset).toBeLessThanOrEqual(7 * 64 * KIB);
  });

  test('what is compressed anew reads anew, and nothing goes to a cluster that was freed and taken again', async () => {
    const storage = await memoryBackend(new MemoryDisk()).create('/image', { secret: false });
    await using image = await qcow2.create(storage, { virtualSize: byteLength(640 * KIB) });
    const cluster = (value: number): Uint8Array => new Uint8Array(64 * KIB).fill(value);
    for (const value of [1, 2]) {
      await image.writeCompressed(guestOffset(0), cluster(value));
      expect((await readAll(image))[9]).toBe(value);
    }
    await image.flush();
    await image.deallocate(range(0, 64 * KIB));
    await image.flush();
    await image.write(guestOffset(64 * KIB), cluster(3), plain);
    await image.writeCompressed(guestOffset(128 * KIB), cluster(4));
    await image.flush();
    expect((await readAll(image)).subarray(64 * KIB, 128 * KIB)).toEqual(cluster(3));
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('refused: parts of clusters', async () => {
    const storage = await memoryBackend(new MemoryDisk()).create('/image', { secret: false });
    await using image = await qcow2.create(storage, { virtualSize: byteLength(100 * KIB) });
    for (const [at, length] of [
      [0, 512],
      [512, 64 * KIB],
      [64 * KIB, 512],
    ] as const)
      await expect(
        image.writeCompressed(guestOffset(at), new Uint8Array(length)),
      ).rejects.toMatchObject({ code: 'IMAGE_RANGE' });
    await image.writeCompressed(guestOffset(64 * KIB), new Uint8Array(36 * KIB));
  });
});
