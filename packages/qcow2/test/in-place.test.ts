import type { Image } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { Craft } from './craft.ts';
import { belowOf, openOn, range, readAll } from './support.ts';

/** What is written where it lies, what moves, and what entries say afterwards. */

const KIB = 1024;
const CLUSTER = 16 * KIB;
const UNIT = 512;
const below = new Uint8Array(16 * CLUSTER).fill(0xbb);
const over = { fill: belowOf(below) };

/** An image over a backing file, the first eight of its 16 clusters full of ones; `craft` changes its bytes. */
async function made(
  options: Partial<Qcow2CreateOptions> = {},
  craft: (craft: Craft) => void = () => {},
): Promise<{ disk: MemoryDisk; craft: Craft; image: Image }> {
  const disk = new MemoryDisk();
  {
    const storage = await memoryBackend(disk).create('/image', { secret: false });
    await using image = await qcow2.create(storage, {
      virtualSize: byteLength(16 * CLUSTER),
      clusterSize: CLUSTER,
      backing: { name: 'base.raw', format: 'raw' },
      ...options,
    });
    await image.write(guestOffset(0), new Uint8Array(8 * CLUSTER).fill(1), over);
    await image.flush();
  }
  craft(new Craft(disk, '/image'));
  return { disk, craft: new Craft(disk, '/image'), image: await openOn(disk, '/image', 'write') };
}

const entry = (craft: Craft, cluster: number): readonly number[] =>
  Array.from({ length: craft.geometry.entryWords }, (_, word) =>
    craft.word(craft.entryAt(cluster) + 4 * word),
  );

describe('preallocated zeros', () => {
  test('are written in their place; what was not written is zero, not what lay there', async () => {
    const { craft, image } = await made({}, (crafted) => crafted.preallocateZero([2, 3]));
    const hosts = [craft.hostOf(2), craft.hostOf(3)];
    await image.write(guestOffset(2 * CLUSTER + 100), new Uint8Array(50).fill(7), over);
    await image.write(guestOffset(3 * CLUSTER), new Uint8Array(CLUSTER).fill(8), over);
    await image.flush();
    expect([craft.hostOf(2), craft.hostOf(3)]).toEqual(hosts);
    expect(entry(craft, 2)[1]).toBe(hosts[0]);
    const view = await readAll(image, over.fill);
    const expected = new Uint8Array(CLUSTER);
    expected.fill(7, 100, 150);
    expect(Buffer.compare(view.subarray(2 * CLUSTER, 3 * CLUSTER), expected)).toBe(0);
    expect(view[3 * CLUSTER]).toBe(8);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
  });

  test('may lie past the end of the file until they are written', async () => {
    const { disk, craft, image } = await made();
    await image[Symbol.asyncDispose]();
    const file = disk.fileOf(disk.inodeOf('/image'));
    craft.preallocateZero([7]);
    expect(craft.hostOf(7)).toBe(file.length - CLUSTER);
    file.setLength(file.length - CLUSTER);
    await using again = await openOn(disk, '/image', 'write');
    expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await again.write(guestOffset(7 * CLUSTER + 5), Uint8Array.of(9), over);
    await again.flush();
    const view = await readAll(again, over.fill);
    expect(view.slice(7 * CLUSTER + 4, 7 * CLUSTER + 7)).toEqual(Uint8Array.of(0, 9, 0));
    expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('go back to the backing file with their host cluster', async () => {
    const { craft, image } = await made({}, (crafted) => crafted.preallocateZero([2]));
    await image.deallocate(range(2 * CLUSTER, CLUSTER));
    await image.flush();
    expect(entry(craft, 2)).toEqual([0, 0]);
    expect((await readAll(image, over.fill))[2 * CLUSTER]).toBe(0xbb);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
  });
});

describe('deallocated', () => {
  test.each([2, 3] as const)(
    'in version %i: the entry is empty, and the backing file shows',
    async (version) => {
      const { craft, image } = await made({ version });
      await image.deallocate(range(2 * CLUSTER - 1, CLUSTER + 2));
      await image.flush();
      expect(entry(craft, 2)).toEqual([0, 0]);
      expect(entry(craft, 1)[1]).not.toBe(0);
      const view = await readAll(image, over.fill);
      expect([view[2 * CLUSTER - 1], view[2 * CLUSTER], view[3 * CLUSTER]]).toEqual([1, 0xbb, 1]);
      await image[Symbol.asyncDispose]();
    },
  );

  test('subclusters: both bitmaps, and the host cluster with the last one', async () => {
    const { craft, image } = await made({ extendedL2: true });
    const host = craft.hostOf(2);
    await image.writeZeroes(range(2 * CLUSTER, 4 * UNIT), over);
    await image.deallocate(range(2 * CLUSTER + 2 * UNIT, 4 * UNIT));
    await image.flush();
    expect(entry(craft, 2)).toEqual([0x8000_0000, host, 0b11, ~0b111111 >>> 0]);
    const view = await readAll(image, over.fill);
    expect([0, 1, 2, 5, 6].map((unit) => view[2 * CLUSTER + unit * UNIT])).toEqual([
      0, 0, 0xbb, 0xbb, 1,
    ]);
    await image.deallocate(range(2 * CLUSTER + 6 * UNIT, 26 * UNIT));
    await image.flush();
    expect(entry(craft, 2)).toEqual([0, 0, 0b11, 0]);
    await image.deallocate(range(2 * CLUSTER, CLUSTER));
    await image.flush();
    expect(entry(craft, 2)).toEqual([0, 0, 0, 0]);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
  });
});

describe('written', () => {
  test('a part of a subcluster that shows the backing file is completed from it', async () => {
    const { craft, image } = await made({ extendedL2: true });
    await image.deallocate(range(2 * CLUSTER, 3 * UNIT));
    await image.write(guestOffset(2 * CLUSTER + UNIT + 10), Uint8Array.of(5), over);
    await image.flush();
    expect(entry(craft, 2)[3]).toBe(~0b101 >>> 0);
    const view = await readAll(image, over.fill);
    const at = 2 * CLUSTER + UNIT;
    expect([view[at], view[at + 9], view[at + 10], view[at + 11]]).toEqual([0xbb, 0xbb, 5, 0xbb]);
    await image[Symbol.asyncDispose]();
  });

  test('data in its place does not move', async () => {
    const { craft, image } = await made();
    const hosts = [0, 1, 2, 3].map((cluster) => craft.hostOf(cluster));
    await image.write(guestOffset(10), new Uint8Array(3 * CLUSTER).fill(4), over);
    await image.flush();
    expect([0, 1, 2, 3].map((cluster) => craft.hostOf(cluster))).toEqual(hosts);
    await image[Symbol.asyncDispose]();
  });
});
