import { writeFileSync } from 'node:fs';
import { deflateRawSync, zstdCompressSync } from 'node:zlib';
import { caseContext } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { HIGH_COMPRESSED } from '../src/structures.ts';
import { Craft } from './craft.ts';
import {
  bytesOn,
  dump,
  haveQemu,
  load,
  openOn,
  qemuCheck,
  range,
  readAll,
  run,
  sameByQemu,
  scratch,
} from './support.ts';

/** Compressed clusters: what is read, what is refused, and what becomes of the clusters they lie in. */

const KIB = 1024;
const CLUSTER = 4 * KIB;
const plain = { fill: null };

/** One cluster of content that compresses, different for each. */
function content(cluster: number): Uint8Array {
  const bytes = new Uint8Array(CLUSTER);
  for (let at = 0; at < CLUSTER; at += 16) bytes.fill((cluster * 31 + at / 16) % 256, at, at + 12);
  return bytes;
}

/** An image of 16 clusters, the first eight of which have data. */
async function made(
  options: Partial<Qcow2CreateOptions> = {},
): Promise<{ disk: MemoryDisk; craft: Craft }> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(16 * CLUSTER),
    clusterSize: CLUSTER,
    ...options,
  });
  for (let cluster = 0; cluster < 8; cluster++)
    await image.write(guestOffset(cluster * CLUSTER), content(cluster), plain);
  await image.flush();
  return { disk, craft: new Craft(disk, '/image') };
}

/** Puts packed bytes where guest cluster 0 refers to them, as compressed. */
function pack(craft: Craft, packed: Uint8Array): void {
  const entry = craft.entryAt(0);
  craft.addReference(craft.hostOf(0), -1);
  const at = craft.append(packed);
  const sectors = Math.ceil(packed.length / 512) - 1;
  craft.setWord(entry, HIGH_COMPRESSED | (sectors << (62 - (craft.geometry.clusterBits - 8) - 32)));
  craft.setWord(entry + 4, at);
}

async function first(disk: MemoryDisk): Promise<Uint8Array> {
  await using image = await openOn(disk, '/image', 'read');
  const bytes = new Uint8Array(CLUSTER);
  await image.read(guestOffset(0), bytes, null);
  return bytes;
}

const garbage = caseContext(1).bytes(300);
const half = CLUSTER / 2;
const zstd = (bytes: Uint8Array): Uint8Array => zstdCompressSync(bytes);
const deflate = (bytes: Uint8Array): Uint8Array => deflateRawSync(bytes, { windowBits: 12 });

describe('what is packed in', () => {
  const packed: Readonly<
    Record<string, readonly [Partial<Qcow2CreateOptions>, readonly Uint8Array[]]>
  > = {
    'a deflate stream': [{}, [deflate(content(9))]],
    'a deflate stream, with garbage behind it': [{}, [deflate(content(9)), garbage]],
    'a zstd frame': [{ compression: 'zstd' }, [zstd(content(9))]],
    'a zstd frame, with garbage behind it': [{ compression: 'zstd' }, [zstd(content(9)), garbage]],
    'two zstd frames': [
      { compression: 'zstd' },
      [zstd(content(9).subarray(0, half)), zstd(content(9).subarray(half))],
    ],
    'many zstd frames, one of them of one byte, with garbage behind them': [
      { compression: 'zstd' },
      [
        zstd(content(9).subarray(0, 1)),
        ...Array.from({ length: 7 }, (_, index) =>
          zstd(content(9).subarray(1 + index * 500, 1 + (index + 1) * 500)),
        ),
        zstd(content(9).subarray(3501)),
        garbage,
      ],
    ],
  };
  test.each(Object.entries(packed))('%s: is read', async (_, [options, parts]) => {
    const { disk, craft } = await made(options);
    pack(craft, Buffer.concat(parts));
    expect(Buffer.compare(await first(disk), content(9))).toBe(0);
    if (!haveQemu) return;
    using dir = scratch();
    dump(disk, '/image', dir.path('image.qcow2'));
    writeFileSync(dir.path('expected.raw'), content(9));
    run(
      'qemu-img',
      'dd',
      '-f',
      'qcow2',
      '-O',
      'raw',
      `if=${dir.path('image.qcow2')}`,
      `of=${dir.path('seen.raw')}`,
      `bs=${CLUSTER}`,
      'count=1',
    );
    run(
      'qemu-img',
      'compare',
      '-f',
      'raw',
      '-F',
      'raw',
      dir.path('seen.raw'),
      dir.path('expected.raw'),
    );
    expect(qemuCheck(dir.path('image.qcow2'))).toMatchObject({ 'check-errors': 0 });
  });

  const broken: typeof packed = {
    'a deflate stream of too little': [{}, [deflate(content(9).subarray(0, half))]],
    'a deflate stream of too much': [{}, [deflate(Buffer.concat([content(9), content(1)]))]],
    'garbage for deflate': [{}, [Uint8Array.of(7, ...garbage)]],
    'a zstd frame of too little': [{ compression: 'zstd' }, [zstd(content(9).subarray(0, half))]],
    'a zstd frame of too much': [
      { compression: 'zstd' },
      [zstd(Buffer.concat([content(9), content(1)]))],
    ],
    'a zstd frame that ends early': [{ compression: 'zstd' }, [zstd(content(9)).subarray(0, 40)]],
    'garbage for zstd': [{ compression: 'zstd' }, [garbage]],
    'a deflate stream in a zstd image': [{ compression: 'zstd' }, [deflate(content(9))]],
  };
  test.each(Object.entries(broken))('%s: is refused', async (_, [options, parts]) => {
    const { disk, craft } = await made(options);
    pack(craft, Buffer.concat(parts));
    await expect(first(disk)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
  });
});

describe('host clusters that several compressed ones lie in', () => {
  test('each touched one loses a reference for each of them that goes, and is used again after the last', async () => {
    const { disk, craft } = await made();
    craft.compress([1, 2, 3, 4, 5, 6]);
    const packedAt = craft.word(craft.entryAt(1) + 4);
    {
      await using image = await openOn(disk, '/image', 'write');
      expect(await image.check()).toMatchObject({
        corruptions: 0,
        leaks: 0,
        compressedClusters: 6,
      });
      await image.write(guestOffset(CLUSTER + 100), content(10).subarray(0, 1000), plain);
      await image.deallocate(range(2 * CLUSTER, CLUSTER));
      await image.writeZeroes(range(3 * CLUSTER, CLUSTER), plain);
      await image.write(guestOffset(4 * CLUSTER), content(11), plain);
      await image.flush();
      expect(await image.check()).toMatchObject({
        corruptions: 0,
        leaks: 0,
        compressedClusters: 2,
      });
      const view = await readAll(image);
      const expected = content(1);
      expected.set(content(10).subarray(0, 1000), 100);
      expect(Buffer.compare(view.subarray(CLUSTER, 2 * CLUSTER), expected)).toBe(0);
      expect(Buffer.compare(view.subarray(5 * CLUSTER, 6 * CLUSTER), content(5))).toBe(0);
      await image.deallocate(range(5 * CLUSTER, 2 * CLUSTER));
      await image.flush();
      expect(await image.check()).toMatchObject({
        corruptions: 0,
        leaks: 0,
        compressedClusters: 0,
      });
      for (let cluster = 8; cluster < 16; cluster++)
        await image.write(guestOffset(cluster * CLUSTER), content(cluster), plain);
      await image.flush();
    }
    const hosts = [0, 1, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15].map((cluster) =>
      craft.hostOf(cluster),
    );
    expect(hosts).toContain(packedAt - (packedAt % CLUSTER));
  });

  test('none of them is written in place', async () => {
    const { disk, craft } = await made();
    craft.compress([0, 1]);
    const packed = craft.bytes(craft.word(craft.entryAt(0) + 4), 200);
    const at = craft.word(craft.entryAt(0) + 4);
    await using image = await openOn(disk, '/image', 'write');
    await image.write(guestOffset(0), content(12), plain);
    await image.write(guestOffset(CLUSTER), content(13), plain);
    expect(craft.bytes(at, 200)).toEqual(packed);
  });
});

describe.skipIf(!haveQemu)('what QEMU compressed', () => {
  test.each([
    ['zlib', '65536'],
    ['zlib', '4096'],
    ['zlib', '2097152'],
    ['zstd', '65536'],
    ['zstd', '4096'],
  ])(
    '%s, clusters of %s bytes: read, rewritten in parts, and still sound',
    async (type, clusterSize) => {
      using dir = scratch();
      const size = 3 * 2097152 + 512;
      const model = new Uint8Array(size);
      for (let at = 0; at < size; at += 64) model.fill((at / 64) % 253, at, at + 40);
      writeFileSync(dir.path('in.raw'), model);
      run(
        'qemu-img',
        'convert',
        '-q',
        '-c',
        '-f',
        'raw',
        '-O',
        'qcow2',
        '-o',
        `cluster_size=${clusterSize},compression_type=${type}`,
        dir.path('in.raw'),
        dir.path('image.qcow2'),
      );
      const disk = new MemoryDisk();
      await load(disk, '/image', dir.path('image.qcow2'));
      {
        await using image = await openOn(disk, '/image', 'write');
        expect(Buffer.compare(await readAll(image), model)).toBe(0);
        for (const [at, length] of [
          [100, 70_000],
          [size - 1000, 1000],
          [2097152 - 5, 10],
        ] as const) {
          model.fill(0xab, at, at + length);
          await image.write(guestOffset(at), model.subarray(at, at + length), plain);
        }
        await image.deallocate(range(4194304, 65_536));
        const unit = Number(clusterSize);
        if (unit <= 65_536) model.fill(0, 4194304, 4194304 + 65_536);
        await image.flush();
        expect(Buffer.compare(await readAll(image), model)).toBe(0);
      }
      dump(disk, '/image', dir.path('image.qcow2'));
      const check = qemuCheck(dir.path('image.qcow2'));
      expect([check['corruptions'] ?? 0, check['leaks'] ?? 0]).toEqual([0, 0]);
      sameByQemu(dir.path('image.qcow2'), model);
      expect(bytesOn(disk, '/image').length).toBeGreaterThan(0);
    },
  );
});
