import { writeFileSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import type { Extent } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { Craft } from './craft.ts';
import {
  bytesOn,
  dump,
  haveQemu,
  load,
  openOn,
  range,
  readAll,
  run,
  sameByQemu,
  scratch,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const plain = { fill: null };
const short = { name: 'b.raw', format: 'raw' };

async function created(options: Partial<Qcow2CreateOptions> = {}): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(1024 * KIB + 512),
    ...options,
  });
  await image.write(guestOffset(100 * KIB), new Uint8Array(300 * KIB).fill(7), plain);
  await image.flush();
  return disk;
}

describe.skipIf(!haveQemu)('amend, of images that QEMU made', () => {
  const made = [
    ['compat=0.10', true],
    ['compat=1.1', false],
    ['compat=0.10', false],
    ['compat=1.1', true],
    ['compat=1.1,lazy_refcounts=on', true],
    ['compat=0.10,cluster_size=512', true],
  ] as const;
  test.each(made.slice(0, perTier({ quick: 2, ci: 6, long: 6 })))(
    '%s, with a backing file: %s',
    async (option, backed) => {
      using dir = scratch();
      const [path, base, view] = [
        dir.path('image.qcow2'),
        dir.path('base.raw'),
        dir.path('view.raw'),
      ];
      run('qemu-img', 'create', '-q', '-f', 'raw', base, '1M');
      run('qemu-io', '-f', 'raw', '-c', 'write -P 9 0 1M', base);
      const backing = backed ? ['-b', 'base.raw', '-F', 'raw'] : [];
      run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', option, ...backing, path, '1M');
      run('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 64k 100k', '-c', 'write -z 90k 200k', path);
      run('qemu-img', 'convert', '-O', 'raw', path, view);
      const disk = new MemoryDisk();
      await load(disk, '/image', path);
      for (const version of [3, 2, 3, 2] as const) {
        const before = bytesOn(disk, '/image');
        const same = new Craft(disk, '/image').header.version === version;
        {
          await using image = await openOn(disk, '/image', 'write');
          if (version === 3) await image.amend({ version, lazyRefcounts: true });
          else await image.amend({ version });
          if (version === 3) await image.amend({ lazyRefcounts: false });
          expect(image.backing).toEqual(backed ? { name: 'base.raw', format: 'raw' } : null);
        }
        if (same && !option.includes('lazy')) expect(bytesOn(disk, '/image')).toEqual(before);
        dump(disk, '/image', path);
        const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as {
          'format-specific': { data: { compat: string } };
        };
        expect(info['format-specific'].data.compat).toBe(version === 2 ? '0.10' : '1.1');
        soundByQemu(path);
        run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path, view);
      }
    },
  );

  test('a snapshot stays through a change to version 3 and back', async () => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', path, '1M');
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 64k 100k', path);
    run('qemu-img', 'snapshot', '-c', 's', path);
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.amend({ version: 3 });
      await image.write(guestOffset(0), new Uint8Array(200 * KIB), plain);
      await image.flush();
      await image.amend({ version: 2 });
    }
    dump(disk, '/image', path);
    run('qemu-img', 'snapshot', '-a', 's', path);
    run('qemu-io', '-r', '-f', 'qcow2', '-c', 'read -P 3 64k 100k', path);
    run('qemu-img', 'check', '-q', path);
  });
});

test.each<
  [
    what: string,
    options: Partial<Qcow2CreateOptions>,
    craft: (craft: Craft) => void,
    change?: (image: Qcow2) => Promise<unknown>,
  ]
>([
  ['refcounts of other widths', { refcountBits: 8 }, () => {}],
  ['subclusters', { extendedL2: true }, () => {}],
  ['zstd', { compression: 'zstd' }, () => {}],
  ['bitmaps', {}, (craft) => void craft.bitmap()],
  [
    'snapshots of another size',
    {},
    (craft) => craft.snapshot(),
    (image) => image.resize(byteLength(2048 * KIB), plain),
  ],
  [
    'zeros in snapshots',
    {},
    () => {},
    async (image) => {
      await image.writeZeroes(range(100 * KIB, 300 * KIB), plain);
      await image.snapshots.create({ name: 's', date: '2026-11-25T00:00:00Z' });
      await image.write(guestOffset(100 * KIB), new Uint8Array(300 * KIB), plain);
    },
  ],
])(
  'version 2 has no %s: refused, and nothing is written',
  async (_, options, craft, change = async () => {}) => {
    const disk = await created(options);
    craft(new Craft(disk, '/image'));
    {
      await using image = await openOn(disk, '/image', 'write');
      await change(image);
      await image.flush();
    }
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    await expect(image.amend({ version: 2 })).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
    expect(bytesOn(disk, '/image')).toEqual(before);
  },
);

describe('refcounts of another width', () => {
  const KEPT = 64 * KIB;

  /** Writes here and there, so that clusters are taken, let go, and counted anew. */
  async function work(image: Qcow2, model: Uint8Array, seed: number): Promise<void> {
    const { bytes, integer } = caseContext(seed);
    for (let turn = 0; turn < 6; turn++) {
      const at = integer(model.length - KEPT);
      const source = bytes(1 + integer(KEPT));
      await image.write(guestOffset(at), source, plain);
      model.set(source, at);
      const gone = integer(model.length - KEPT);
      await image.writeZeroes(range(gone, KEPT), plain);
      model.fill(0, gone, gone + KEPT);
    }
    await image.flush();
  }

  test.each([512, 4 * KIB, 64 * KIB].slice(0, perTier({ quick: 1, ci: 3, long: 3 })))(
    'each in turn, with clusters of %i bytes, while the image is written',
    async (clusterSize) => {
      const disk = await created({ clusterSize });
      const model = new Uint8Array(1024 * KIB + 512).fill(7, 100 * KIB, 400 * KIB);
      using dir = scratch();
      const path = dir.path('image.qcow2');
      for (const [seed, refcountBits] of [1, 64, 2, 32, 4, 16, 8, 1].entries()) {
        await using image = await openOn(disk, '/image', 'write');
        await image.amend({ refcountBits });
        expect((await image.describe()).specific).toMatchObject({ 'refcount-bits': refcountBits });
        expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
        await work(image, model, seed);
        expect(Buffer.compare(await readAll(image), model)).toBe(0);
        expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
        if (!haveQemu) continue;
        dump(disk, '/image', path);
        soundByQemu(path);
        sameByQemu(path, model);
      }
    },
  );

  test.each([
    [1, 2],
    [2, 4],
  ])(
    '%i bits are refused where a cluster is referred to more often, %i are not',
    async (less, enough) => {
      const disk = await created({ refcountBits: 16 });
      {
        await using image = await openOn(disk, '/image', 'write');
        for (let taken = 0; taken < less + 1; taken++)
          await image.snapshots.create({ name: `s${taken}`, date: '2026-11-25T00:00:00Z' });
      }
      const before = bytesOn(disk, '/image');
      await using image = await openOn(disk, '/image', 'write');
      await expect(image.amend({ refcountBits: less })).rejects.toMatchObject({
        code: 'IMAGE_UNSUPPORTED',
        message: expect.stringContaining(`is referred to ${less + 2} times`),
      });
      expect(bytesOn(disk, '/image')).toEqual(before);
      await image.amend({ refcountBits: enough });
      const [first] = await image.snapshots.list();
      await image.snapshots.delete(first?.id ?? '');
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );

  test.each([0, 3, 128, 2.5, Number.NaN])('%s bits there are not', async (refcountBits) => {
    const disk = await created();
    const before = bytesOn(disk, '/image');
    await using image = await openOn(disk, '/image', 'write');
    for (const amendment of [{ refcountBits }, { refcountBits: 8, version: 2 as const }])
      await expect(image.amend(amendment)).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
    expect(bytesOn(disk, '/image')).toEqual(before);
  });

  test('version 2 gets them with version 3; bitmaps, compressed clusters and leaks are counted', async () => {
    const disk = await created({ version: 2 });
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.writeCompressed(guestOffset(512 * KIB), new Uint8Array(64 * KIB).fill(3));
      await image.amend({ version: 3, refcountBits: 4 });
      await image.bitmaps.add({ name: 'b' });
      await image.amend({ refcountBits: 2 });
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      await expect(image.amend({ version: 2 })).rejects.toMatchObject({
        code: 'IMAGE_UNSUPPORTED',
      });
      await image.bitmaps.remove('b');
      await image.amend({ version: 2, refcountBits: 16 });
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    }
    if (!haveQemu) return;
    using dir = scratch();
    dump(disk, '/image', dir.path('image.qcow2'));
    soundByQemu(dir.path('image.qcow2'));
  });
});

describe('preallocation', () => {
  const modes = (['metadata', 'full', 'falloc'] as const).slice(
    0,
    perTier({ quick: 1, ci: 3, long: 3 }),
  );
  const shapes: readonly Partial<Qcow2CreateOptions>[] = [
    {},
    { clusterSize: 512, refcountBits: 1 },
    { extendedL2: true, backing: short },
    { version: 2, clusterSize: 4 * KIB },
  ];
  test.each(modes.flatMap((preallocation) => shapes.map((shape) => ({ preallocation, ...shape }))))(
    '$preallocation, $clusterSize $refcountBits $extendedL2 $version',
    async (options) => {
      const disk = await created(options);
      await using image = await openOn(disk, '/image', 'write');
      const { virtualSize, clusterSize } = image.geometry;
      const report = await image.check();
      expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
      expect(report.allocatedClusters).toBe(Math.ceil(virtualSize / clusterSize));
      const below = async (_: number, target: Uint8Array): Promise<void> => void target.fill(9);
      const view = await readAll(image, options.backing === undefined ? null : below);
      const outside = options.backing === undefined ? 0 : 9;
      expect([view[0], view[100 * KIB], view.at(-1)]).toEqual([outside, 7, outside]);
      // as much as was asked for is there from the start
      await image.write(guestOffset(600 * KIB), new Uint8Array(100 * KIB).fill(8), plain);
      await image.flush();
      expect((await image.check()).imageEndOffset).toBe(report.imageEndOffset);
      if (!haveQemu) return;
      using dir = scratch();
      dump(disk, '/image', dir.path('image.qcow2'));
      writeFileSync(dir.path('b.raw'), new Uint8Array(2048 * KIB).fill(9));
      run('qemu-img', 'check', '-q', dir.path('image.qcow2'));
      view.fill(8, 600 * KIB, 700 * KIB);
      sameByQemu(dir.path('image.qcow2'), view);
    },
  );

  test('of what a larger disk has more, over the cluster that its old end cut', async () => {
    const disk = await created({ virtualSize: byteLength(500 * KIB) });
    await using image = await openOn(disk, '/image', 'write');
    await image.resize(byteLength(3000 * KIB), plain);
    await image.preallocate(range(500 * KIB, 2500 * KIB), 'metadata');
    await image.flush();
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 46 });
    const view = await readAll(image);
    expect(view.every((byte, at) => byte === (at >= 100 * KIB && at < 400 * KIB ? 7 : 0))).toBe(
      true,
    );
  });

  test('refused of a new image over a backing file, which it would hide', async () => {
    const refused = { code: 'IMAGE_UNSUPPORTED' };
    await expect(created({ backing: short, preallocation: 'full' })).rejects.toMatchObject(refused);
  });

  test('over a backing file of zeros alone: what lies below stays in view', async () => {
    const storage = await memoryBackend(new MemoryDisk()).create('/image', { secret: false });
    const virtualSize = byteLength(512 * KIB);
    await using image = await qcow2.create(storage, { virtualSize, backing: short });
    await image.writeZeroes(range(128 * KIB, 128 * KIB), plain);
    await image.preallocate(range(0, 512 * KIB), 'metadata');
    await image.flush();
    const extents: Extent[] = [];
    for await (const batch of image.extents(range(0, 512 * KIB))) extents.push(...batch);
    expect(extents).toMatchObject([
      { status: 'unallocated', length: 128 * KIB },
      { status: 'zero', preallocated: true, length: 128 * KIB },
      { status: 'unallocated', length: 256 * KIB },
    ]);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 2 });
  });
});

describe('growth of L1 table, refcount table and blocks', () => {
  const widths = [1, 2, 4, 8, 16, 32, 64];
  test.each(widths)('refcounts of %i bits', async (refcountBits) => {
    const disk = new MemoryDisk();
    const storage = await memoryBackend(disk).create('/image', { secret: false });
    // a refcount table of one cluster counts 64 blocks of 4096 / width clusters
    const blocks = perTier({
      quick: refcountBits < 32 ? 2 : 70,
      ci: refcountBits < 8 ? 3 : 70,
      long: 70,
    });
    const filled = blocks * (4096 / refcountBits) * 512;
    {
      await using image = await qcow2.create(storage, {
        virtualSize: byteLength(32 * KIB),
        clusterSize: 512,
        refcountBits,
      });
      await image.resize(byteLength(2 * filled), plain);
      const part = new Uint8Array(512 * KIB).fill(refcountBits);
      for (let at = 0; at < filled; at += part.length)
        await image.write(
          guestOffset(at),
          part.subarray(0, Math.min(part.length, filled - at)),
          plain,
        );
      await image.flush();
      expect(await image.check()).toMatchObject({
        corruptions: 0,
        leaks: 0,
        allocatedClusters: filled / 512,
      });
    }
    if (!haveQemu) return;
    using dir = scratch();
    dump(disk, '/image', dir.path('image.qcow2'));
    run('qemu-img', 'check', '-q', dir.path('image.qcow2'));
    run(
      'qemu-io',
      '-r',
      '-f',
      'qcow2',
      '-c',
      `read -P ${refcountBits} 0 ${filled}`,
      dir.path('image.qcow2'),
    );
  });
});
