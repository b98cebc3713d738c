import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { HIGH_COPIED } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { bytesOn, dump, haveQemu, openOn, qemuCheck, readAll, scratch } from './support.ts';

/** Leaks: what is given back, what stays, and what is refused. */

const SMALL = 512;
const plain = { fill: null };

/** An image of 64 clusters, the first eight of which have data. */
async function made(
  options: Partial<Qcow2CreateOptions> = {},
): Promise<{ disk: MemoryDisk; craft: Craft }> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(64 * SMALL),
    clusterSize: SMALL,
    ...options,
  });
  await image.write(guestOffset(0), new Uint8Array(8 * SMALL).fill(1), plain);
  await image.flush();
  return { disk, craft: new Craft(disk, '/image') };
}

/** Reclaims, and compares with what the check says before and after. */
async function reclaim(
  disk: MemoryDisk,
): Promise<{ before: number; given: number; after: number }> {
  await using image = await openOn(disk, '/image', 'write');
  const view = await readAll(image);
  const before = await image.check();
  const given = await image.reclaimLeaks();
  const after = await image.check();
  expect(after.corruptions).toBe(0);
  expect(Buffer.compare(await readAll(image), view)).toBe(0);
  return { before: before.leaks, given, after: after.leaks };
}

describe('given back', () => {
  test('clusters that nothing refers to, near and far, and are taken again', async () => {
    const { disk, craft } = await made();
    const at = craft.append(new Uint8Array(5 * SMALL).fill(7));
    expect(await reclaim(disk)).toEqual({ before: 5, given: 5, after: 0 });
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.write(guestOffset(20 * SMALL), new Uint8Array(5 * SMALL).fill(2), plain);
      await image.flush();
    }
    expect(craft.hostOf(20)).toBe(at);
  });

  test.each([1, 2, 4, 8, 16, 32, 64])(
    'counts that are too high, of refcounts of %i bits',
    async (refcountBits) => {
      const { disk, craft } = await made({ refcountBits });
      const at = craft.append(new Uint8Array(SMALL));
      craft.addReference(at, Math.min(2 ** refcountBits, 2 ** 53) - 2);
      expect(await reclaim(disk)).toEqual({ before: 1, given: 1, after: 0 });
    },
  );

  test('a count of more than 2^53', async () => {
    const { disk, craft } = await made({ refcountBits: 64 });
    const at = craft.append(new Uint8Array(SMALL));
    const block = craft.word(craft.header.refcountTableOffset + 4);
    craft.setWord(block + 8 * (at / SMALL), 0xffff_ffff);
    expect(await reclaim(disk)).toEqual({ before: 1, given: 1, after: 0 });
  });

  test('references that a copy on write from a snapshot left behind', async () => {
    const { disk, craft } = await made();
    craft.snapshot();
    const host = craft.hostOf(2);
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.write(guestOffset(2 * SMALL), new Uint8Array(SMALL).fill(2), plain);
      await image.flush();
    }
    // as if the crash came before the count went down
    craft.addReference(host);
    expect(await reclaim(disk)).toEqual({ before: 1, given: 1, after: 0 });
  });

  test('a count that is too high and makes the copied flag wrong', async () => {
    const { disk, craft } = await made();
    craft.addReference(craft.hostOf(2));
    await using image = await openOn(disk, '/image', 'write');
    expect(await image.check()).toMatchObject({ corruptions: 1, leaks: 1 });
    expect(await image.reclaimLeaks()).toBe(1);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

test('a cluster that only the disk refers to gets its copied flag before its count goes down', async () => {
  const { disk, craft } = await made();
  craft.addReference(craft.hostOf(2));
  craft.setWord(craft.entryAt(2), craft.word(craft.entryAt(2)) & ~HIGH_COPIED);
  expect(await reclaim(disk)).toEqual({ before: 1, given: 1, after: 0 });
  expect(craft.word(craft.entryAt(2)) & HIGH_COPIED).not.toBe(0);
});

describe('refused, and nothing is written', () => {
  const broken: Readonly<Record<string, (craft: Craft) => void>> = {
    'a cluster in use that counts as free': (craft) => craft.addReference(craft.hostOf(2), -1),
    'a cluster with one reference and no copied flag': (craft) =>
      craft.setWord(craft.entryAt(2), craft.word(craft.entryAt(2)) & ~HIGH_COPIED),
    'two entries for one cluster': (craft) => {
      craft.setOffset(craft.entryAt(3), craft.hostOf(2));
      craft.setWord(craft.entryAt(3), craft.word(craft.entryAt(3)) | HIGH_COPIED);
    },
    'a refcount table entry with reserved bits': (craft) => {
      const at = craft.header.refcountTableOffset + 4;
      craft.setWord(at, craft.word(at) | 1);
    },
  };
  test.each(Object.entries(broken))('%s', async (_, breakIt) => {
    const { disk, craft } = await made();
    craft.append(new Uint8Array(SMALL));
    breakIt(craft);
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    await expect(image.reclaimLeaks()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('an image opened for reading', async () => {
    const { disk } = await made();
    await using image = await openOn(disk, '/image', 'read');
    await expect(image.reclaimLeaks()).rejects.toMatchObject({ code: 'IMAGE_READ_ONLY' });
  });
});

test('what was written and not flushed is no leak', async () => {
  const { disk, craft } = await made();
  craft.append(new Uint8Array(2 * SMALL));
  await using image = await openOn(disk, '/image', 'write');
  await image.write(guestOffset(30 * SMALL), new Uint8Array(3 * SMALL).fill(5), plain);
  expect(await image.reclaimLeaks()).toBe(2);
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  expect((await readAll(image))[30 * SMALL]).toBe(5);
});

test.skipIf(!haveQemu)(
  'QEMU finds an image with leaks clean afterwards, and without the discarded data',
  async () => {
    const { disk, craft } = await made();
    craft.append(new Uint8Array(3 * SMALL).fill(9));
    using dir = scratch();
    dump(disk, '/image', dir.path('image.qcow2'));
    expect(qemuCheck(dir.path('image.qcow2'))).toMatchObject({ leaks: 3 });
    await reclaim(disk);
    dump(disk, '/image', dir.path('image.qcow2'));
    expect(qemuCheck(dir.path('image.qcow2'))).toMatchObject({ 'check-errors': 0 });
    expect(qemuCheck(dir.path('image.qcow2'))['leaks'] ?? 0).toBe(0);
  },
);
