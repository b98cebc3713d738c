import { closeSync, openSync, writeSync } from 'node:fs';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { Craft } from './craft.ts';
import { haveQemu, openOn, qemuCheck, range, readAll, run, scratch } from './support.ts';

/** Host offsets of more than 32 bits, and files that end inside a cluster. */

const MIB = 1 << 20;
const GIB = 2 ** 30;
const plain = { fill: null };

/** A sparse image whose clusters below `from` are all counted: what is allocated lies behind them. */
async function beyond(from: number, clusterSize: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  {
    const storage = await memoryBackend(disk).create('/image', { secret: false });
    await using image = await qcow2.create(storage, {
      virtualSize: byteLength(64 * MIB),
      clusterSize,
      refcountBits: 8,
    });
    await image.write(guestOffset(0), new Uint8Array(clusterSize).fill(1), plain);
    await image.flush();
  }
  const craft = new Craft(disk, '/image');
  const { refcountsPerBlock } = craft.geometry;
  const used = disk.fileOf(disk.inodeOf('/image')).length / clusterSize;
  for (let index = 0; index * refcountsPerBlock * clusterSize < from; index++) {
    const entry = craft.header.refcountTableOffset + 8 * index;
    if (index > 0) craft.setOffset(entry, index * refcountsPerBlock * clusterSize);
    const block = craft.word(entry) * 2 ** 32 + craft.word(entry + 4);
    const first = index === 0 ? used : 0;
    const end = Math.min(refcountsPerBlock, from / clusterSize - index * refcountsPerBlock);
    // eight bits each
    craft.set(block + first, new Uint8Array(end - first).fill(1));
  }
  return disk;
}

describe('behind 4 GiB of other clusters', () => {
  test.each([65_536, 2 * MIB])(
    'clusters of %i bytes: allocated, mapped, released and taken again',
    async (clusterSize) => {
      const disk = await beyond(5 * GIB, clusterSize);
      const craft = new Craft(disk, '/image');
      const leaks = await (async () => {
        await using image = await openOn(disk, '/image', 'read');
        return (await image.check()).leaks;
      })();
      expect(leaks).toBeGreaterThan(2000);
      {
        await using image = await openOn(disk, '/image', 'write');
        await image.write(guestOffset(10 * MIB), new Uint8Array(6 * MIB).fill(2), plain);
        await image.flush();
        expect(craft.hostOf((10 * MIB) / clusterSize)).toBeGreaterThanOrEqual(5 * GIB);
        await image.deallocate(range(10 * MIB, 2 * MIB));
        await image.flush();
        await image.write(guestOffset(30 * MIB), new Uint8Array(2 * MIB).fill(3), plain);
        await image.flush();
        expect(craft.hostOf((30 * MIB) / clusterSize)).toBeGreaterThanOrEqual(5 * GIB);
        expect(await image.check()).toMatchObject({ corruptions: 0, leaks });
      }
      await using image = await openOn(disk, '/image', 'write');
      const view = await readAll(image);
      expect([view[0], view[10 * MIB], view[12 * MIB], view[30 * MIB]]).toEqual([1, 0, 2, 3]);
      if (haveQemu) {
        using dir = scratch();
        const path = dir.path('image.qcow2');
        writeSparse(disk, path);
        expect(qemuCheck(path)).toMatchObject({ 'check-errors': 0, leaks });
        run(
          'qemu-io',
          '-r',
          '-f',
          'qcow2',
          '-c',
          'read -P 1 0 64k',
          '-c',
          'read -P 2 12M 4M',
          '-c',
          'read -P 3 30M 2M',
          path,
        );
      }
      expect(await image.reclaimLeaks()).toBe(leaks);
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );
});

/** The file with holes where it is zero. */
function writeSparse(disk: MemoryDisk, path: string): void {
  const file = disk.fileOf(disk.inodeOf('/image'));
  const descriptor = openSync(path, 'w');
  const [piece, zeros] = [new Uint8Array(MIB), new Uint8Array(MIB)];
  for (let at = 0; at < file.length; at += MIB) {
    const filled = file.read(at, piece);
    const part = piece.subarray(0, filled);
    if (at + filled < file.length && Buffer.compare(part, zeros) === 0) continue;
    writeSync(descriptor, part, 0, part.length, at);
  }
  closeSync(descriptor);
}

describe('a file that ends inside its last cluster', () => {
  test('its data is read, zeros behind it; it is written, and grows', async () => {
    const disk = new MemoryDisk();
    {
      const storage = await memoryBackend(disk).create('/image', { secret: false });
      await using image = await qcow2.create(storage, { virtualSize: byteLength(MIB) });
      await image.write(guestOffset(0), new Uint8Array(65_536).fill(4), plain);
      await image.flush();
    }
    const file = disk.fileOf(disk.inodeOf('/image'));
    file.setLength(file.length - 60_000);
    {
      await using image = await openOn(disk, '/image', 'write');
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      const view = await readAll(image);
      expect([view[5535], view[5536]]).toEqual([4, 0]);
      await image.write(guestOffset(10_000), new Uint8Array(10).fill(5), plain);
      await image.write(guestOffset(200_000), new Uint8Array(10).fill(6), plain);
      await image.flush();
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    }
    await using image = await openOn(disk, '/image', 'read');
    const view = await readAll(image);
    expect([view[5535], view[5536], view[10_000], view[200_000]]).toEqual([4, 0, 5, 6]);
  });

  test('a disk whose last cluster is short is written to its end', async () => {
    const disk = new MemoryDisk();
    const size = MIB + 512;
    {
      const storage = await memoryBackend(disk).create('/image', { secret: false });
      await using image = await qcow2.create(storage, { virtualSize: byteLength(size) });
      await image.write(guestOffset(MIB), new Uint8Array(512).fill(7), plain);
      await expect(image.write(guestOffset(MIB), new Uint8Array(513), plain)).rejects.toMatchObject(
        { code: 'IMAGE_RANGE' },
      );
      await image.flush();
    }
    await using image = await openOn(disk, '/image', 'write');
    expect((await readAll(image)).at(-1)).toBe(7);
    await image.deallocate(range(MIB, 512));
    await image.flush();
    expect((await readAll(image)).at(-1)).toBe(0);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 0 });
  });
});
