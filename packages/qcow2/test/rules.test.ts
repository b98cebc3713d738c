import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import {
  AUTOCLEAR_AT,
  EXTENSION,
  HIGH_COPIED,
  INCOMPATIBLE,
  INCOMPATIBLE_AT,
} from '../src/structures.ts';
import { Craft } from './craft.ts';
import { bytesOn, openOn, range, readAll } from './support.ts';

/** The rules that are not barriers: W7 dirty images, W8 feature bits, W10 the corrupt bit, W13 overlaps. */

const SMALL = 512;
const plain = { fill: null };
const filled = (value: number, length = SMALL): Uint8Array => new Uint8Array(length).fill(value);

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
  await image.write(guestOffset(0), filled(1, 8 * SMALL), plain);
  await image.flush();
  return { disk, craft: new Craft(disk, '/image') };
}

describe('W7: an image whose refcounts may be wrong is not written', () => {
  test('corrupt: refused for writing, read otherwise', async () => {
    const { disk, craft } = await made();
    craft.setWord(INCOMPATIBLE_AT + 4, INCOMPATIBLE.corrupt);
    const before = bytesOn(disk, '/image');
    await expect(openOn(disk, '/image', 'write')).rejects.toMatchObject({
      code: 'IMAGE_NEEDS_REPAIR',
      message: '/image: is marked corrupt; repair it first: downfold check -r all',
    });
    await using image = await openOn(disk, '/image', 'read');
    expect((await readAll(image)).subarray(0, SMALL)).toEqual(filled(1));
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('lazy refcounts are allowed by the image, and not used', async () => {
    const { disk, craft } = await made({ lazyRefcounts: true });
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.write(guestOffset(20 * SMALL), filled(2), plain);
      await image.flush();
    }
    expect(craft.word(INCOMPATIBLE_AT + 4)).toBe(0);
    await using image = await openOn(disk, '/image', 'read');
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

describe('W8: feature bits', () => {
  test('an unknown incompatible one is refused, by the name that the image gives it', async () => {
    for (const [high, low] of [
      [0, 0x20],
      [0x8000_0000, 0],
    ] as const) {
      const { disk, craft } = await made();
      craft.setWord(INCOMPATIBLE_AT, high);
      craft.setWord(INCOMPATIBLE_AT + 4, low);
      await expect(openOn(disk, '/image', 'read')).rejects.toMatchObject({
        code: 'IMAGE_UNSUPPORTED',
      });
      const row = new Uint8Array(48);
      row[1] = low === 0 ? 63 : 5;
      row.set(new TextEncoder().encode('time travel'), 2);
      craft.extend([EXTENSION.featureNames, row]);
      await expect(openOn(disk, '/image', 'read')).rejects.toMatchObject({
        code: 'IMAGE_UNSUPPORTED',
        details: { feature: 'time travel' },
      });
    }
  });

  test('an unknown compatible one is ignored, and stays', async () => {
    const { disk, craft } = await made();
    craft.setWord(80, 0xdead_beef);
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.write(guestOffset(0), filled(2), plain);
      await image.setBacking({ name: 'b', format: 'raw' });
    }
    expect(craft.word(80)).toBe(0xdead_beef);
  });

  test('an unknown autoclear one goes with the first change, and not before', async () => {
    const { disk, craft } = await made();
    craft.autoclear(0x8000_0000, 0x100);
    await using image = await openOn(disk, '/image', 'write');
    await readAll(image);
    await image.flush();
    await image.check();
    expect(await image.reclaimLeaks()).toBe(0);
    expect(craft.word(AUTOCLEAR_AT)).toBe(0x8000_0000);
    await image.writeZeroes(range(0, SMALL), plain);
    expect([craft.word(AUTOCLEAR_AT), craft.word(AUTOCLEAR_AT + 4)]).toEqual([0, 0]);
  });

  test('bitmaps are in use from the first change of the disk on, and stay true through a change of the header', async () => {
    const { disk, craft } = await made();
    const flagsAt = craft.bitmap();
    await using image = await openOn(disk, '/image', 'write');
    await image.setBacking({ name: 'b', format: 'raw' });
    await image.setMark({ state: 'superseded', job: 'j', date: 'd' });
    expect([craft.word(flagsAt), craft.word(AUTOCLEAR_AT + 4)]).toEqual([0, 1]);
    await image.write(guestOffset(0), filled(2), plain);
    expect([craft.word(flagsAt), craft.word(AUTOCLEAR_AT + 4)]).toEqual([1, 1]);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

/** Bytes of the cluster that holds each kind of metadata, in an image with all of them. */
const metadata: Readonly<Record<string, (craft: Craft) => number>> = {
  header: () => 0,
  'L1 table': (craft) => craft.header.l1TableOffset,
  'refcount table': (craft) => craft.header.refcountTableOffset,
  'refcount block': (craft) => craft.word(craft.header.refcountTableOffset + 4),
  'L2 table': (craft) => craft.entryAt(0) - (craft.entryAt(0) % SMALL),
  'snapshot table': (craft) => craft.header.snapshotsOffset,
  "snapshot's L1 table": (craft) => craft.word(craft.header.snapshotsOffset + 4),
  'bitmap directory': (craft) => {
    const area = craft.bytes(112, 32);
    return new DataView(area.buffer).getUint32(28);
  },
};

describe('W10, W13: a write that would hit metadata', () => {
  const crafted = async (version: 2 | 3): Promise<{ disk: MemoryDisk; craft: Craft }> => {
    const { disk, craft } = await made({ version });
    craft.snapshot();
    if (version === 3) craft.bitmap();
    return { disk, craft };
  };

  // an entry that points to cluster 0 points nowhere
  test.each(
    Object.keys(metadata)
      .slice(1)
      .flatMap((kind) => [[kind, 'write'] as const, [kind, 'copyFrom'] as const]),
  )('%s, by %s: refused, and the image is marked corrupt', async (kind, by) => {
    const { disk, craft } = await crafted(3);
    const at = (metadata[kind] as (craft: Craft) => number)(craft);
    const entry = craft.entryAt(3);
    craft.setWord(entry, HIGH_COPIED);
    craft.setWord(entry + 4, at);
    // the L2 table is the guest's own again, or a copy of it would be written
    const l1 = craft.header.l1TableOffset;
    craft.setWord(l1, craft.word(l1) | HIGH_COPIED);
    const before = craft.bytes(0, disk.fileOf(disk.inodeOf('/image')).length);
    const flagsAt = (metadata['bitmap directory'] as (craft: Craft) => number)(craft) + 12;
    {
      await using image = await openOn(disk, '/image', 'write');
      const offset = guestOffset(3 * SMALL);
      const piece = { source: image.data, from: hostOffset(0), offset, length: byteLength(SMALL) };
      const work =
        by === 'write' ? image.write(offset, filled(9), plain) : image.copyFrom([piece], plain);
      await expect(work).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
      await expect(image.write(guestOffset(0), filled(9), plain)).rejects.toMatchObject({
        code: 'IMAGE_CORRUPT',
      });
      await expect(image.flush()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
    }
    expect(craft.word(INCOMPATIBLE_AT + 4) & INCOMPATIBLE.corrupt).toBe(INCOMPATIBLE.corrupt);
    // nothing but that bit, and the bitmaps in use
    craft.setWord(INCOMPATIBLE_AT + 4, craft.word(INCOMPATIBLE_AT + 4) & ~INCOMPATIBLE.corrupt);
    craft.setWord(flagsAt, 0);
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('version 2 has no corrupt bit: refused all the same, and nothing is written', async () => {
    const { disk, craft } = await made({ version: 2 });
    const entry = craft.entryAt(3);
    craft.setWord(entry + 4, entry - (entry % SMALL));
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    // the second one waits behind the first, and would be written in place
    const works = [3, 0].map((cluster) =>
      image.write(guestOffset(cluster * SMALL), filled(9), plain),
    );
    for (const work of works) await expect(work).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test.each(
    Object.keys(metadata).flatMap((kind) => [
      [kind, 'write'] as const,
      [kind, 'copyFrom'] as const,
    ]),
  )('%s in a cluster that counts as free: not taken by %s', async (kind, by) => {
    const { disk, craft } = await crafted(3);
    const at = (metadata[kind] as (craft: Craft) => number)(craft);
    craft.addReference(at, kind === 'L2 table' ? -2 : -1);
    const before = craft.bytes(at, SMALL);
    await using image = await openOn(disk, '/image', 'write');
    const pieces = Array.from({ length: 8 }, (_, index) => ({
      source: image.data,
      from: hostOffset(0),
      // apart, so that each is a run of its own
      offset: guestOffset(2 * index * SMALL),
      length: byteLength(SMALL),
    }));
    // what is shared with the snapshot moves, tables first
    const work = (): Promise<void> =>
      by === 'write'
        ? image.write(guestOffset(0), filled(9, 8 * SMALL), plain)
        : image.copyFrom(pieces, plain);
    await expect(work().then(() => image.flush())).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
    expect(craft.word(INCOMPATIBLE_AT + 4)).toBe(INCOMPATIBLE.corrupt);
    craft.setWord(INCOMPATIBLE_AT + 4, 0);
    if (kind === 'bitmap directory') craft.setWord(at + 12, 0);
    expect(craft.bytes(at, SMALL)).toEqual(before);
  });
});

describe('entries that break the rules are refused before anything is written', () => {
  const broken: Readonly<Record<string, (craft: Craft, entry: number) => void>> = {
    'reserved bits': (craft, entry) => craft.setWord(entry + 4, craft.word(entry + 4) | 0x10),
    'an offset inside a cluster': (craft, entry) =>
      craft.setWord(entry, craft.word(entry) | 0x10_0000),
    'a cluster past the end of the file': (craft, entry) => craft.setWord(entry + 4, 1 << 30),
    'a compressed cluster past the end of the file': (craft, entry) => {
      craft.setWord(entry, 0x4000_0000);
      craft.setWord(entry + 4, 1 << 30);
    },
  };
  test.each(Object.entries(broken))('%s', async (_, breakIt) => {
    const { disk, craft } = await made({ clusterSize: 4096, virtualSize: byteLength(65_536) });
    breakIt(craft, craft.entryAt(0));
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    const refused = { code: 'IMAGE_CORRUPT' };
    await expect(image.write(guestOffset(0), filled(9), plain)).rejects.toMatchObject(refused);
    await expect(image.write(guestOffset(0), filled(9, 4096), plain)).rejects.toMatchObject(
      refused,
    );
    await expect(readAll(image)).rejects.toMatchObject(refused);
    expect(bytesOn(disk, '/image')).toEqual(before);
    expect((await image.check()).corruptions).toBeGreaterThan(0);
  });

  test('the zero flag in a version 2 image', async () => {
    const { disk, craft } = await made({ version: 2 });
    const entry = craft.entryAt(3);
    craft.setWord(entry + 4, craft.word(entry + 4) | 1);
    await using image = await openOn(disk, '/image', 'write');
    const refused = { code: 'IMAGE_CORRUPT' };
    await expect(readAll(image)).rejects.toMatchObject(refused);
    await expect(image.write(guestOffset(3 * SMALL), filled(9), plain)).rejects.toMatchObject(
      refused,
    );
    await expect(image.deallocate(range(3 * SMALL, SMALL))).rejects.toMatchObject(refused);
    expect((await image.check()).corruptions).toBeGreaterThan(0);
  });
});

test('a refcount table that names a block twice is no image to write to: each name would be searched for room', async () => {
  const { disk, craft } = await made();
  const { refcountTableOffset } = craft.header;
  craft.set(refcountTableOffset + 8, craft.bytes(refcountTableOffset, 8));
  await expect(openOn(disk, '/image', 'write')).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
  await using image = await openOn(disk, '/image', 'read');
  expect((await readAll(image)).subarray(0, SMALL)).toEqual(filled(1));
});

describe('a header whose empty backing format goes when room is made', () => {
  /** The backing name lies right behind the end marker. */
  async function cramped(): Promise<{ disk: MemoryDisk; craft: Craft }> {
    const { disk, craft } = await made({ backing: { name: 'base.qcow2', format: null } });
    const area = new Uint8Array(SMALL - 112);
    const view = new DataView(area.buffer);
    view.setUint32(0, EXTENSION.backingFormat);
    area.set(new TextEncoder().encode('base.qcow2'), 16);
    craft.set(112, area);
    craft.patch({ backingFileOffset: 128, backingFileSize: 10 });
    return { disk, craft };
  }

  test('a mark is there when it was set', async () => {
    const { disk } = await cramped();
    const mark = { state: 'mixed', job: 'j', date: '2026-11-30' } as const;
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.setMark(mark);
      expect(image.mark).toEqual(mark);
    }
    await using image = await openOn(disk, '/image', 'read');
    expect(image.mark).toEqual(mark);
    expect(image.backing).toEqual({ name: 'base.qcow2', format: null });
  });

  test('a bitmap too, and the header is whole', async () => {
    const { disk } = await cramped();
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.bitmaps.add({ name: 'b0' });
    }
    await using image = await openOn(disk, '/image', 'read');
    expect(await image.bitmaps.list()).toMatchObject([{ name: 'b0' }]);
    expect(image.backing).toEqual({ name: 'base.qcow2', format: null });
  });
});

test.each([
  [2, true, true],
  [2, false, false],
  [3, true, false],
] as const)(
  'version %i, with a backing file: %s, has to write zeros as data: %s',
  async (version, isBacked, expected) => {
    const { disk } = await made({
      version,
      backing: isBacked ? { name: 'b', format: 'raw' } : null,
    });
    await using image = await openOn(disk, '/image', 'read');
    expect(image.zeroesAsData).toBe(expected);
  },
);
