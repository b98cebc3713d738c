import type { Image } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { parseExtensions } from '../src/extensions.ts';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { EXTENSION, HEADER_V2_BYTES } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { GOLDEN_PATH, goldenDisk, goldenImages } from './golden/library.ts';
import { bytesOn, dump, haveQemu, load, openOn, range, readAll, run, scratch } from './support.ts';

/** Header fidelity: what nobody asked to change stays byte for byte. */

const KIB = 1024;
const UNKNOWN = 0x1234_5678;
const SECRET = new TextEncoder().encode('what this extension means, nobody here knows');

/** An image with data; `craft` changes its bytes. */
async function made(
  options: Partial<Qcow2CreateOptions>,
  craft: (craft: Craft) => void = () => {},
): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(256 * KIB),
    clusterSize: 4 * KIB,
    backing: { name: 'base.raw', format: 'raw' },
    ...options,
  });
  await image.write(guestOffset(0), new Uint8Array(20 * KIB).fill(1), { fill: null });
  await image.flush();
  craft(new Craft(disk, '/image'));
  return disk;
}

const names = new Uint8Array(384).fill(7);

/** Images whose headers hold things that must survive. */
const kinds: Readonly<Record<string, () => Promise<MemoryDisk>>> = {
  plain: () => made({}),
  'version 2': () => made({ version: 2 }),
  'version 2 with an extension': () =>
    made({ version: 2 }, (craft) => craft.extend([UNKNOWN, SECRET])),
  'an unknown extension': () => made({}, (craft) => craft.extend([UNKNOWN, SECRET])),
  'a feature table like QEMU writes, and an unknown extension': () =>
    made({ clusterSize: 64 * KIB, backing: null }, (craft) => {
      const text = new TextEncoder();
      craft.extend(
        [EXTENSION.backingFormat, text.encode('raw')],
        [EXTENSION.featureNames, names],
        [UNKNOWN, SECRET],
      );
      craft.set(600, text.encode('base.raw'));
      craft.patch({ backingFileOffset: 600, backingFileSize: 8 });
    }),
  'two extensions of one unknown type, one of them empty': () =>
    made({}, (craft) => craft.extend([UNKNOWN, SECRET], [UNKNOWN, new Uint8Array()])),
  'a longer header than any known': () =>
    made({}, (craft) => {
      const rest = craft.bytes(112, 512);
      craft.setWord(100, 136);
      craft.set(112, SECRET.subarray(0, 24));
      craft.set(136, rest);
      craft.patch({ backingFileOffset: craft.header.backingFileOffset + 24 });
    }),
  'unknown compatible bits': () => made({}, (craft) => craft.setWord(80, 0xfedc_ba98)),
  'a snapshot': () => made({}, (craft) => craft.snapshot()),
  'a bitmap': () => made({}, (craft) => void craft.bitmap()),
};

/** The extensions of a header, without the backing format and the mark. */
function foreign(bytes: Uint8Array): readonly (readonly [type: number, data: string])[] {
  const view = new DataView(bytes.buffer);
  const start = view.getUint32(4) === 2 ? HEADER_V2_BYTES : view.getUint32(100);
  const limit = view.getUint32(12) || 2 ** view.getUint32(20);
  return parseExtensions('/image', bytes, start, limit)
    .extensions.filter(({ type }) => type !== EXTENSION.backingFormat && type !== EXTENSION.mark)
    .map(({ type, data }) => [type, Buffer.from(data).toString('hex')]);
}

/** Fixed header bytes with some ranges blanked, up to the extensions. */
function fixed(
  bytes: Uint8Array,
  ...except: readonly (readonly [from: number, to: number])[]
): string {
  const view = new DataView(bytes.buffer);
  const end = view.getUint32(4) === 2 ? HEADER_V2_BYTES : view.getUint32(100);
  const head = bytes.slice(0, end);
  for (const [from, to] of except) head.fill(0, from, to);
  return Buffer.from(head).toString('hex');
}

const BACKING_FIELDS = [8, 20] as const;

/** Changes one thing; resolves with the file before and after. */
async function changed(
  disk: MemoryDisk,
  change: (image: Image) => Promise<unknown>,
): Promise<{ before: Uint8Array; after: Uint8Array }> {
  const before = bytesOn(disk, '/image');
  await using image = await openOn(disk, '/image', 'write');
  await change(image);
  return { before, after: bytesOn(disk, '/image') };
}

describe.each(Object.entries(kinds))('%s', (_, make) => {
  test('opened for writing, read, checked and closed: byte for byte the same', async () => {
    const { before, after } = await changed(await make(), async (image) => {
      await readAll(image);
      await image.check();
      await image.flush();
      await image.assertRoomFor({ name: 'somewhere else', format: 'qcow2' });
      await image.deallocate(range(100, 200));
    });
    // deallocating nothing may say that bitmaps are in use, as any change of the disk
    if (_ !== 'a bitmap') expect(after).toEqual(before);
  });

  test('relinked: nothing but the reference', async () => {
    const disk = await make();
    const { clusterSize } = new Craft(disk, '/image').geometry;
    for (const [name, format] of [
      ['another.qcow2', 'qcow2'],
      [`${'far/'.repeat(100)}away.qcow2`, 'qcow2'],
      ['r', 'raw'],
    ] as const) {
      const { before, after } = await changed(disk, (image) => image.setBacking({ name, format }));
      expect(after.subarray(clusterSize)).toEqual(before.subarray(clusterSize));
      expect(fixed(after, BACKING_FIELDS)).toBe(fixed(before, BACKING_FIELDS));
      expect(foreign(after)).toEqual(foreign(before));
      await using image = await openOn(disk, '/image', 'read');
      expect(image.backing).toEqual({ name, format });
    }
    const { before, after } = await changed(disk, (image) => image.setBacking(null));
    expect(after.subarray(clusterSize)).toEqual(before.subarray(clusterSize));
    expect(fixed(after, BACKING_FIELDS)).toBe(fixed(before, BACKING_FIELDS));
    expect(foreign(after)).toEqual(foreign(before));
    await using image = await openOn(disk, '/image', 'read');
    expect(image.backing).toBeNull();
  });

  test('marked: nothing but the mark', async () => {
    const disk = await make();
    const { clusterSize } = new Craft(disk, '/image').geometry;
    const mark = { state: 'mixed', job: 'a-job', date: '2026-11-25T00:00:00Z' } as const;
    for (const next of [mark, { ...mark, state: 'superseded' } as const, null]) {
      const { before, after } = await changed(disk, (image) => image.setMark(next));
      expect(after.subarray(clusterSize)).toEqual(before.subarray(clusterSize));
      expect(fixed(after, BACKING_FIELDS)).toBe(fixed(before, BACKING_FIELDS));
      expect(foreign(after)).toEqual(foreign(before));
      await using image = await openOn(disk, '/image', 'read');
      expect(image.mark).toEqual(next);
      expect(image.backing).toEqual({ name: 'base.raw', format: 'raw' });
    }
  });

  test('a mark survives a relink, and a relink a mark', async () => {
    const disk = await make();
    const mark = { state: 'invalid', job: 'a-job', date: '2026-11-25T00:00:00Z' } as const;
    await changed(disk, async (image) => {
      await image.setBacking({ name: 'one', format: 'raw' });
      await image.setMark(mark);
      await image.setBacking({ name: `${'long '.repeat(150)}two`, format: 'qcow2' });
    });
    await using image = await openOn(disk, '/image', 'read');
    expect([image.mark, image.backing?.format]).toEqual([mark, 'qcow2']);
  });

  test('grown: nothing but the size and the L1 table', async () => {
    const disk = await make();
    const { version, nbSnapshots } = new Craft(disk, '/image').header;
    expect([version, nbSnapshots]).not.toEqual([2, 1]);
    const fields = [
      [24, 32],
      [36, 48],
    ] as const;
    const { before, after } = await changed(disk, (image) =>
      image.resize(byteLength(8 << 20), { fill: null }),
    );
    expect(fixed(after, ...fields)).toBe(fixed(before, ...fields));
    expect(foreign(after)).toEqual(foreign(before));
    await using image = await openOn(disk, '/image', 'read');
    expect(image.geometry.virtualSize).toBe(8 << 20);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

test('every golden image that can be opened for writing stays as it is when nothing is written', async () => {
  let opened = 0;
  for (const golden of goldenImages) {
    // one that is dirty is repaired (repair-dirty.test.ts)
    if (golden.name === 'dirty.qcow2') continue;
    const disk = await goldenDisk(golden);
    const before = bytesOn(disk, GOLDEN_PATH);
    const image = await openOn(disk, GOLDEN_PATH, 'write').catch(() => null);
    if (image !== null) {
      opened++;
      await readAll(image).catch(() => null);
      await image.check();
      await image.flush();
      await image[Symbol.asyncDispose]();
    }
    expect(Buffer.compare(bytesOn(disk, GOLDEN_PATH), before), golden.name).toBe(0);
  }
  expect(opened).toBeGreaterThan(20);
});

describe('where there is no room', () => {
  test('a name that does not fit the header is refused, and nothing is written', async () => {
    const disk = await made({ clusterSize: 512, virtualSize: byteLength(64 * KIB) });
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    const reference = { name: 'x'.repeat(400), format: 'qcow2' };
    const refused = { code: 'IMAGE_NO_ROOM' };
    await expect(image.assertRoomFor(reference)).rejects.toMatchObject(refused);
    await expect(image.setBacking(reference)).rejects.toMatchObject(refused);
    await expect(image.setBacking({ name: 'y'.repeat(1024), format: 'raw' })).rejects.toMatchObject(
      refused,
    );
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('a name may follow at once on an area without an end marker; the marker is put there', async () => {
    const disk = await made({ backing: null }, (craft) => {
      // extensions up to byte 160, the name from there on
      craft.extend([UNKNOWN, SECRET.subarray(0, 40)]);
      craft.set(160, new TextEncoder().encode('old name'));
      craft.patch({ backingFileOffset: 160, backingFileSize: 8 });
    });
    const before = bytesOn(disk, '/image');
    expect(foreign(before).length).toBe(1);
    for (const reference of [{ name: 'new', format: null }, null]) {
      const copy = disk.copy();
      const { after } = await changed(copy, (image) => image.setBacking(reference));
      expect(foreign(after)).toEqual(foreign(before));
      await using image = await openOn(copy, '/image', 'read');
      expect(image.backing).toEqual(reference);
    }
  });

  test('a first format that would straddle the first sector is refused when the name is in the way', async () => {
    const disk = await made({ backing: null, clusterSize: 64 * KIB }, (craft) => {
      craft.extend([EXTENSION.featureNames, names]);
      craft.set(512, new TextEncoder().encode('old name'));
      craft.patch({ backingFileOffset: 512, backingFileSize: 8 });
    });
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    const reference = { name: 'new', format: 'raw' };
    await expect(image.assertRoomFor(reference)).rejects.toMatchObject({ code: 'IMAGE_NO_ROOM' });
    await expect(image.setBacking(reference)).rejects.toMatchObject({ code: 'IMAGE_NO_ROOM' });
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('a mark in a full header is refused, and nothing is written', async () => {
    const options = { clusterSize: 512, virtualSize: byteLength(64 * KIB) };
    const backing = { name: 'x'.repeat(300), format: 'raw' };
    const disk = await made({ ...options, backing }, (craft) =>
      craft.extend([UNKNOWN, new Uint8Array(40)]),
    );
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    await expect(image.setMark({ state: 'invalid', job: 'j', date: 'd' })).rejects.toMatchObject({
      code: 'IMAGE_NO_ROOM',
    });
    expect(bytesOn(disk, '/image')).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('QEMU', () => {
  test.each(Object.keys(kinds))(
    'reads what was relinked, marked and grown, and keeps a mark (%s)',
    async (kind) => {
      using dir = scratch();
      const disk = await (kinds[kind] as () => Promise<MemoryDisk>)();
      const mark = { state: 'invalid', job: 'a-job', date: '2026-11-25T00:00:00Z' } as const;
      const { version, nbSnapshots } = new Craft(disk, '/image').header;
      await changed(disk, async (image) => {
        await image.setBacking({ name: 'base.raw', format: 'raw' });
        await image.setMark(mark);
        if (version === 3 || nbSnapshots === 0)
          await image.resize(byteLength(512 * KIB), { fill: null });
      });
      const path = dir.path('image.qcow2');
      run('qemu-img', 'create', '-q', '-f', 'raw', dir.path('base.raw'), '1M');
      dump(disk, '/image', path);
      const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as Record<
        string,
        unknown
      >;
      expect(info).toMatchObject({
        'backing-filename': 'base.raw',
        'backing-filename-format': 'raw',
        'virtual-size': 512 * KIB,
      });
      run('qemu-img', 'check', '-q', path);
      run('qemu-img', 'create', '-q', '-f', 'raw', dir.path('other.raw'), '1M');
      run(
        'qemu-img',
        'rebase',
        '-q',
        '-u',
        '-f',
        'qcow2',
        '-F',
        'raw',
        '-b',
        dir.path('other.raw'),
        path,
      );
      const again = new MemoryDisk();
      await load(again, '/image', path);
      await using image = await openOn(again, '/image', 'read');
      expect([image.mark, image.backing?.name]).toEqual([mark, dir.path('other.raw')]);
    },
  );
});

test.each([15, 16, 63])(
  'a backing format of %i bytes is none above 15, as to QEMU',
  async (length) => {
    const disk = await made({ backing: null }, (craft) => {
      craft.extend([EXTENSION.backingFormat, new TextEncoder().encode('r'.repeat(length))]);
      craft.set(600, new TextEncoder().encode('base.raw'));
      craft.patch({ backingFileOffset: 600, backingFileSize: 8 });
    });
    const opened = openOn(disk, '/image', 'read');
    if (length > 15) {
      await expect(opened).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
      return;
    }
    await using image = await opened;
    expect(image.backing?.format).toHaveLength(length);
  },
);
