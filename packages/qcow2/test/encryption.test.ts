import { perTier } from '@downfold/compliance';
import { type ImageErrorCode, imageSecret } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { EXTENSION, encryptionExtension } from '../src/structures.ts';
import { Craft } from './craft.ts';
import {
  change,
  createOn,
  encryption,
  judgedByQemu,
  openOn,
  otherPassphrase,
  passphrase,
} from './encryption-support.ts';
import { bytesOn, dump, haveQemu, range, readAll, scratch } from './support.ts';

const KIB = 1024;
const SIZE = 512 * KIB;
const plain = { fill: null };

const kinds: Readonly<Record<string, Partial<Qcow2CreateOptions>>> = {
  defaults: {},
  'extended L2': { extendedL2: true, clusterSize: 16 * KIB },
  'clusters of 512 bytes': { clusterSize: 512 },
  'version 2': { version: 2, clusterSize: 4 * KIB },
  preallocated: { preallocation: 'metadata' },
};

describe.skipIf(!haveQemu)('judged by QEMU', () => {
  test.each(Object.entries(kinds).slice(0, perTier({ quick: 2, ci: 5, long: 5 })))(
    '%s: what is written here reads there',
    async (_, options) => {
      using directory = scratch();
      const disk = new MemoryDisk();
      const model = new Uint8Array(SIZE);
      const settings = { virtualSize: byteLength(SIZE), ...options, encryption: encryption() };
      await (await createOn(disk, '/image', settings))[Symbol.asyncDispose]();
      {
        await using image = await openOn(disk, '/image', 'write');
        await change(image, model, 1);
        await image.flush();
      }
      dump(disk, '/image', directory.path('image'));
      judgedByQemu(directory.path('image'), model);
      await using again = await openOn(disk, '/image', 'read');
      expect(Buffer.compare(await readAll(again), model)).toBe(0);
      expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );
});

test('nothing that a guest writes is in the file', async () => {
  const disk = new MemoryDisk();
  await using image = await createOn(disk, '/image', {
    virtualSize: byteLength(SIZE),
    encryption: encryption(),
  });
  const secretText = new TextEncoder().encode('attack at dawn');
  await image.write(guestOffset(5), secretText, plain);
  await image.writeZeroes(range(0, 3), plain);
  await image.flush();
  expect(Buffer.from(bytesOn(disk, '/image')).includes('attack')).toBe(false);
});

test('a hole of the file is data, and noise', async () => {
  const disk = new MemoryDisk();
  await using image = await createOn(disk, '/image', {
    virtualSize: byteLength(SIZE),
    encryption: encryption(),
  });
  await image.write(guestOffset(0), new Uint8Array(SIZE).fill(7), plain);
  await image.flush();
  const told = async (): Promise<unknown[]> => {
    const all: unknown[] = [];
    for await (const batch of image.extents(range(0, SIZE), { holes: 1 }))
      for (const { status, length } of batch) all.push([status, length]);
    return all;
  };
  const before = await told();
  await using file = await memoryBackend(disk).open('/image', 'write');
  const end = await file.length();
  await file.discard({ offset: hostOffset(end - SIZE), length: byteLength(SIZE) });
  expect(await file.runAt(hostOffset(end - SIZE))).toMatchObject({ hole: true });
  expect(await told()).toEqual(before);
  expect(before).toEqual([['data', SIZE]]);
  expect((await readAll(image)).some((byte) => byte !== 0)).toBe(true);
});

describe('between images', () => {
  test.each([
    ['another key', { encryption: encryption(otherPassphrase) }],
    ['none', {}],
  ])('copies go through both keys: %s', async (_, other) => {
    const disk = new MemoryDisk();
    const size = { virtualSize: byteLength(SIZE), clusterSize: 4 * KIB };
    await using one = await createOn(disk, '/one', { ...size, encryption: encryption() });
    await using two = await createOn(disk, '/two', { ...size, ...other });
    const content = Buffer.alloc(SIZE, 'all of it is text. ');
    await one.write(guestOffset(0), content, plain);
    for (const [from, to] of [
      [one, two],
      [two, one],
    ] as const) {
      for await (const batch of from.extents(range(0, SIZE)))
        for (const extent of batch)
          if (extent.status === 'data')
            await to.copyFrom([{ ...extent, source: from.data, from: extent.host }], plain);
      await to.flush();
      expect(Buffer.compare(await readAll(to), content)).toBe(0);
    }
    expect(Buffer.from(bytesOn(disk, '/one')).includes('all of it')).toBe(false);
  });
});

describe('secrets', () => {
  async function made(): Promise<MemoryDisk> {
    const disk = new MemoryDisk();
    await using image = await createOn(disk, '/image', {
      virtualSize: byteLength(SIZE),
      encryption: encryption(),
    });
    await image.write(guestOffset(0), passphrase, plain);
    await image.flush();
    return disk;
  }

  test('none, and a wrong one', async () => {
    const disk = await made();
    for (const mode of ['read', 'write'] as const) {
      await expect(openOn(disk, '/image', mode, null)).rejects.toMatchObject({
        code: 'IMAGE_SECRET_NEEDED',
        details: { image: '/image' },
      });
      await expect(openOn(disk, '/image', mode, otherPassphrase, true)).rejects.toMatchObject({
        code: 'IMAGE_WRONG_SECRET',
        details: { image: '/image' },
      });
    }
  });

  test('none, where that is allowed: all but guest data', async () => {
    const disk = await made();
    await using image = await openOn(disk, '/image', 'write', null, true);
    expect((await image.describe()).encrypted).toBe(true);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image.setBacking({ name: 'below', format: 'raw' });
    const code = 'IMAGE_SECRET_NEEDED';
    const buffer = new Uint8Array(1);
    await expect(image.read(guestOffset(0), buffer, null)).rejects.toMatchObject({ code });
    await expect(image.data.read(hostOffset(0), buffer)).rejects.toMatchObject({ code });
    await expect(image.write(guestOffset(0), buffer, plain)).rejects.toMatchObject({ code });
    await using again = await openOn(disk, '/image', 'read');
    const bytes = new Uint8Array(passphrase.length);
    await again.read(guestOffset(0), bytes, null);
    expect(bytes).toEqual(passphrase);
  });

  test('a key is looked for once', async () => {
    const disk = await made();
    const secret = imageSecret(passphrase);
    const open = async (): Promise<void> => {
      const storage = await memoryBackend(disk).open('/image', 'read');
      await using _ = await qcow2.open(storage, { mode: 'read', secret });
    };
    await open();
    expect(secret.keys.size).toBe(1);
    // what is known by now needs no key slot
    const { offset } = placeOf(disk);
    new Craft(disk, '/image').set(offset + 4096, new Uint8Array(256_000));
    await open();
    await expect(openOn(disk, '/image', 'read')).rejects.toMatchObject({
      code: 'IMAGE_WRONG_SECRET',
    });
  });

  test('compressed clusters are refused, as in QEMU', async () => {
    const disk = await made();
    await using image = await openOn(disk, '/image', 'write');
    await expect(image.writeCompressed(guestOffset(0), new Uint8Array(SIZE))).rejects.toMatchObject(
      { code: 'IMAGE_UNSUPPORTED' },
    );
  });
});

/** Where the encryption extension stands, and what it says. */
function placeOf(disk: MemoryDisk): { at: number; offset: number; length: number } {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(EXTENSION.encryption);
  const at = Buffer.from(bytesOn(disk, '/image').subarray(0, 512)).indexOf(head) + 8;
  return { at, ...encryptionExtension.decode(bytesOn(disk, '/image'), at) };
}

describe('hostile headers', () => {
  const place =
    (change: { offset?: number; length?: number }) =>
    (craft: Craft, found: ReturnType<typeof placeOf>): void => {
      const data = new Uint8Array(encryptionExtension.size);
      const { offset, length } = found;
      encryptionExtension.encode({ offset, length, ...change }, data);
      craft.set(found.at, data);
    };
  const cases: readonly [
    string,
    ImageErrorCode,
    (craft: Craft, found: ReturnType<typeof placeOf>) => void,
  ][] = [
    ['legacy AES', 'IMAGE_UNSUPPORTED', (craft) => craft.patch({ cryptMethod: 1 })],
    ['method 9', 'IMAGE_UNSUPPORTED', (craft) => craft.patch({ cryptMethod: 9 })],
    ['a header that is not announced', 'IMAGE_CORRUPT', (craft) => craft.patch({ cryptMethod: 0 })],
    [
      'no header',
      'IMAGE_CORRUPT',
      (craft, { at }) => craft.set(at - 8, Uint8Array.of(0x44, 0x57, 0x4e, 0x30)),
    ],
    ['a header in cluster 0', 'IMAGE_CORRUPT', place({ offset: 0 })],
    ['a header off clusters', 'IMAGE_CORRUPT', place({ offset: 65_537 })],
    ['a header past the end', 'IMAGE_CORRUPT', place({ offset: 2 ** 40 })],
    ['a header of 2^40 bytes', 'IMAGE_LIMIT', place({ length: 2 ** 40 })],
    ['a header of 100 bytes', 'IMAGE_CORRUPT', place({ length: 100 })],
    [
      'what is no LUKS header',
      'IMAGE_CORRUPT',
      (craft, { offset }) => craft.set(offset, new Uint8Array(6)),
    ],
    [
      'hours of iterations',
      'IMAGE_LIMIT',
      (craft, { offset }) => craft.set(offset + 212, Uint8Array.of(0xff, 0xff, 0xff, 0xff)),
    ],
  ];
  test.each(cases)('%s', async (_, code, damage) => {
    const disk = new MemoryDisk();
    const settings = { virtualSize: byteLength(SIZE), encryption: encryption() };
    await (await createOn(disk, '/image', settings))[Symbol.asyncDispose]();
    damage(new Craft(disk, '/image'), placeOf(disk));
    const began = performance.now();
    await expect(openOn(disk, '/image', 'write')).rejects.toMatchObject({
      code,
      details: { image: '/image' },
    });
    expect(performance.now() - began).toBeLessThan(1000);
  });

  test('data in the encryption header is found, and never written', async () => {
    const disk = new MemoryDisk();
    const settings = { virtualSize: byteLength(SIZE), encryption: encryption() };
    {
      await using image = await createOn(disk, '/image', settings);
      await image.write(guestOffset(0), passphrase, plain);
      await image.flush();
    }
    const before = bytesOn(disk, '/image').slice();
    const { offset } = placeOf(disk);
    const craft = new Craft(disk, '/image');
    const l2 = Number(
      new DataView(craft.bytes(craft.header.l1TableOffset, 8).buffer).getBigUint64(0) &
        0xff_ffff_ffff_fe00n,
    );
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setBigUint64(0, (1n << 63n) | BigInt(offset));
    craft.set(l2, entry);
    await using image = await openOn(disk, '/image', 'write');
    expect((await image.check()).corruptions).toBeGreaterThan(0);
    await expect(image.write(guestOffset(0), passphrase, plain)).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
    });
    const after = bytesOn(disk, '/image');
    expect(
      Buffer.compare(after.subarray(offset, offset + 4096), before.subarray(offset, offset + 4096)),
    ).toBe(0);
  });
});
