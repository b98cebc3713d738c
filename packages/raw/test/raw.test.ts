import type { CowSource, Image } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { isRaw, raw } from '../src/index.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

/** Would show if anything asked what lies below. */
const below: CowSource = async (_, target) => void target.fill(0xbb);

/** A disk with a file `/image` of these bytes, and the image opened for writing. */
async function opened(bytes: Uint8Array): Promise<{ disk: MemoryDisk; image: Image }> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await storage.write(hostOffset(0), bytes);
  return { disk, image: await raw.open(storage, { mode: 'write' }) };
}

async function viewOf(image: Image): Promise<Uint8Array> {
  const view = new Uint8Array(image.geometry.virtualSize).fill(0xee);
  await image.read(guestOffset(0), view, below);
  return view;
}

/** `bytes` up to `length`, zeros after them. */
function padded(bytes: Uint8Array, length: number): Uint8Array {
  const result = new Uint8Array(length);
  result.set(bytes);
  return result;
}

test('what is preallocated has a place in the file, and what was written stays', async () => {
  const bytes = new Uint8Array(5000).fill(7);
  const { disk, image } = await opened(bytes);
  await using _ = image;
  if (!isRaw(image)) throw new Error('no raw image');
  await image.resize(byteLength(9 * MIB), { fill: null });
  expect(disk.facts('/image').allocated).toBe(8192);
  await image.preallocate({ offset: guestOffset(512), length: byteLength(6 * MIB) });
  expect(disk.facts('/image').allocated).toBe(6 * MIB + 4096);
  expect(await viewOf(image)).toEqual(padded(bytes, 9 * MIB));
  const storage = await memoryBackend(disk).create('/new', { secret: false });
  await using made = await raw.create(storage, {
    virtualSize: byteLength(MIB),
    preallocated: true,
  });
  expect(made.geometry.virtualSize).toBe(MIB);
  expect(disk.facts('/new').allocated).toBe(MIB);
});

test('tells holes of the file from data, when it is asked, in whole units', async () => {
  const { image } = await opened(new Uint8Array(5000).fill(7));
  await using _ = image;
  await image.resize(byteLength(9 * MIB + 512), { fill: null });
  await image.write(guestOffset(5 * MIB), new Uint8Array(100), { fill: null });
  const range = { offset: guestOffset(1000), length: byteLength(9 * MIB - 488) };
  const told = async (holes?: number): Promise<unknown[]> => {
    const all: unknown[] = [];
    for await (const batch of image.extents(range, { holes }))
      for (const { offset, length, status } of batch) all.push([offset, offset + length, status]);
    return all;
  };
  const end = 9 * MIB + 512;
  expect(await told()).toEqual([[1000, end, 'data']]);
  expect(await told(1)).toEqual([
    [1000, 8192, 'data'],
    [8192, 5 * MIB, 'zero'],
    [5 * MIB, 5 * MIB + 4096, 'data'],
    [5 * MIB + 4096, end, 'zero'],
  ]);
  expect(await told(MIB)).toEqual([
    [1000, MIB, 'data'],
    [MIB, 5 * MIB, 'zero'],
    [5 * MIB, 6 * MIB, 'data'],
    [6 * MIB, end, 'zero'],
  ]);
});

test('a file that ends inside a sector is completed with zeros, and not written for that', async () => {
  const bytes = new Uint8Array(1300).fill(7);
  const { disk, image } = await opened(bytes);
  await using _ = image;
  expect(image.geometry).toEqual({ virtualSize: 1536, clusterSize: 1, allocationGranularity: 1 });
  expect(await viewOf(image)).toEqual(padded(bytes, 1536));
  expect(disk.facts('/image').length).toBe(1300);
});

test.each([0, 511, 512, 513, 1024])('a file of %i bytes has whole sectors', async (length) => {
  await using image = (await opened(new Uint8Array(length).fill(7))).image;
  expect(image.geometry.virtualSize).toBe(Math.ceil(length / 512) * 512);
});

test('a write behind the end of the file, but on the disk, makes the file longer', async () => {
  const bytes = new Uint8Array(1300).fill(7);
  const { disk, image } = await opened(bytes);
  await using _ = image;
  await image.write(guestOffset(1500), new Uint8Array(36).fill(9), { fill: below });
  const expected = padded(bytes, 1536).fill(9, 1500);
  expect(await viewOf(image)).toEqual(expected);
  expect(disk.facts('/image').length).toBe(1536);
});

test('growing rounds the disk up to sectors, and not the file, keeps what was there, and takes no space', async () => {
  const bytes = new Uint8Array(1300).fill(7);
  const { disk, image } = await opened(bytes);
  await using _ = image;
  const { allocated } = disk.facts('/image');
  await image.resize(byteLength(64 * MIB + 1), { fill: below });
  expect(image.geometry.virtualSize).toBe(64 * MIB + 512);
  expect(disk.facts('/image')).toMatchObject({ length: 64 * MIB + 1, allocated });
  const view = new Uint8Array(4096).fill(0xee);
  await image.read(guestOffset(0), view, below);
  expect(view).toEqual(padded(bytes, 4096));
});

test('zeros are holes where the backend makes them', async () => {
  const { disk, image } = await opened(new Uint8Array(4 * MIB).fill(7));
  await using _ = image;
  const { allocated } = disk.facts('/image');
  await image.writeZeroes(
    { offset: guestOffset(MIB), length: byteLength(2 * MIB) },
    { fill: below },
  );
  expect(disk.facts('/image').allocated).toBe(allocated - 2 * MIB);
  expect(await viewOf(image)).toEqual(new Uint8Array(4 * MIB).fill(7).fill(0, MIB, 3 * MIB));
});

test('a new image is one hole behind its first block', async () => {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await raw.create(storage, { virtualSize: byteLength(TIB) });
  expect(image.geometry.virtualSize).toBe(TIB);
  expect(disk.facts('/image')).toMatchObject({ length: TIB, allocated: 4096 });
});

test('everything is data, where the guest sees it', async () => {
  await using image = (await opened(new Uint8Array(2048))).image;
  const batches = [];
  for await (const batch of image.extents({ offset: guestOffset(100), length: byteLength(1000) }))
    batches.push([...batch]);
  expect(batches).toEqual([[{ offset: 100, length: 1000, status: 'data', host: 100 }]]);
});

test('a hostile length is above the limit unless the caller says otherwise', async () => {
  const storage = await memoryBackend().create('/image', { secret: false });
  await storage.setLength(byteLength(64 * TIB + 1));
  await expect(raw.open(storage, { mode: 'read' })).rejects.toMatchObject({
    code: 'IMAGE_LIMIT',
    details: { found: 64 * TIB + 512, limit: 64 * TIB },
  });
  const limits = { virtualSize: byteLength(65 * TIB) };
  await using image = await raw.open(storage, { mode: 'read', limits });
  expect(image.geometry.virtualSize).toBe(64 * TIB + 512);
});

test('a file that cannot be written gives an image that says so', async () => {
  const disk = new MemoryDisk();
  await (await memoryBackend(disk).create('/image', { secret: false })).setLength(byteLength(512));
  await using image = await raw.open(await memoryBackend(disk).open('/image', 'read'), {
    mode: 'write',
  });
  expect(image.writable).toBe(false);
  const writing = image.write(guestOffset(0), new Uint8Array(1), { fill: null });
  await expect(writing).rejects.toMatchObject({ code: 'IMAGE_READ_ONLY' });
});

test('what raw cannot do is refused by name', async () => {
  await using image = (await opened(new Uint8Array(512))).image;
  for (const [attempt, feature] of [
    [image.setBacking({ name: 'b', format: 'raw' }), /a backing file/],
    [image.setMark(null), /a mark in the image/],
    [image.deallocate({ offset: guestOffset(0), length: byteLength(512) }), /deallocation/],
    [image.resize(byteLength(0), { fill: null }), /shrinking/],
  ] as const) {
    await expect(attempt).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
    await expect(attempt).rejects.toThrow(feature);
  }
  expect(raw.recognises(new Uint8Array(512))).toBe(false);
});

test('says beforehand whether its file can be made longer', async () => {
  const { image } = await opened(new Uint8Array(4096));
  await using _ = image;
  expect(() => image.assertCanGrow?.(8192)).not.toThrow();
  // as a block device
  const device = await raw.open(
    new Proxy(image.file, {
      get: (file, key) => {
        if (key === 'supports') return { ...file.supports, resize: false };
        const value = file[key as keyof typeof file];
        return typeof value === 'function' ? value.bind(file) : value;
      },
    }),
    { mode: 'write' },
  );
  expect(() => device.assertCanGrow?.(4096)).not.toThrow();
  expect(() => device.assertCanGrow?.(8192)).toThrow(
    expect.objectContaining({ code: 'IMAGE_UNSUPPORTED' }),
  );
});
