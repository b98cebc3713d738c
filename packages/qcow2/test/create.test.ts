import { perTier } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { dump, haveQemu, openOn, qemuCheck, run, scratch } from './support.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Every combination of options that means something. */
function combinations(): readonly Qcow2CreateOptions[] {
  const all: Qcow2CreateOptions[] = [];
  for (let bits = 9; bits <= 21; bits++)
    for (const refcountBits of [1, 2, 4, 8, 16, 32, 64])
      for (const extendedL2 of bits < 14 ? [false] : [false, true])
        for (const version of refcountBits === 16 && !extendedL2 ? ([2, 3] as const) : [3 as const])
          for (const compression of version === 2
            ? ['deflate' as const]
            : (['deflate', 'zstd'] as const))
            for (const lazyRefcounts of version === 2 ? [false] : [false, true])
              for (const name of [null, 'base.raw'])
                for (const size of [0, 512, 3 * MIB + 512])
                  all.push({
                    clusterSize: 2 ** bits,
                    refcountBits,
                    extendedL2,
                    version,
                    compression,
                    lazyRefcounts,
                    backing: name === null ? null : { name, format: 'raw' },
                    virtualSize: byteLength(size),
                  });
  return all;
}

async function created(options: Qcow2CreateOptions): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, options);
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  return disk;
}

const all = combinations();
const tried = perTier({ quick: 24, ci: 600, long: all.length });
/** Spread over all combinations. */
const chosen = all.filter(
  (_, index) =>
    Math.floor((index * tried) / all.length) !== Math.floor(((index + 1) * tried) / all.length),
);

describe.skipIf(!haveQemu)(
  'QEMU finds nothing wrong with a new image, and the options in it',
  () => {
    test(`${chosen.length} of ${all.length} combinations of options`, async () => {
      using dir = scratch();
      run('qemu-img', 'create', '-q', '-f', 'raw', dir.path('base.raw'), '1M');
      const path = dir.path('image.qcow2');
      for (const options of chosen) {
        const about = JSON.stringify(options);
        dump(await created(options), '/image', path);
        expect(qemuCheck(path), about).toMatchObject({ 'check-errors': 0 });
        const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as Record<
          string,
          unknown
        >;
        expect(info, about).toMatchObject({
          'cluster-size': options.clusterSize,
          'virtual-size': options.virtualSize,
          'format-specific': {
            data: {
              compat: options.version === 2 ? '0.10' : '1.1',
              'refcount-bits': options.refcountBits,
              'compression-type': options.compression === 'zstd' ? 'zstd' : 'zlib',
              ...(options.version === 2
                ? {}
                : {
                    'lazy-refcounts': options.lazyRefcounts,
                    corrupt: false,
                    'extended-l2': options.extendedL2,
                  }),
            },
          },
        });
        expect(info['backing-filename'], about).toBe(options.backing?.name);
      }
    });

    test('what QEMU writes into a new image, Downfold reads', async () => {
      using dir = scratch();
      const path = dir.path('image.qcow2');
      for (const options of chosen
        .filter(({ virtualSize, backing }) => virtualSize > MIB && backing === null)
        .slice(0, 12)) {
        dump(await created(options), '/image', path);
        run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 1M', path);
        expect(qemuCheck(path)['corruptions'] ?? 0).toBe(0);
      }
    });
  },
);

describe('refused', () => {
  test.each<readonly [string, Partial<Qcow2CreateOptions>, string]>([
    ['clusters of 256 bytes', { clusterSize: 256 }, 'IMAGE_UNSUPPORTED'],
    ['clusters of 4 MiB', { clusterSize: 4 * MIB }, 'IMAGE_UNSUPPORTED'],
    ['clusters of 1000 bytes', { clusterSize: 1000 }, 'IMAGE_UNSUPPORTED'],
    ['refcounts of 3 bits', { refcountBits: 3 }, 'IMAGE_UNSUPPORTED'],
    ['refcounts of 128 bits', { refcountBits: 128 }, 'IMAGE_UNSUPPORTED'],
    [
      'extended L2 with clusters of 8 KiB',
      { extendedL2: true, clusterSize: 8 * KIB },
      'IMAGE_UNSUPPORTED',
    ],
    ['extended L2 in version 2', { extendedL2: true, version: 2 }, 'IMAGE_UNSUPPORTED'],
    ['zstd in version 2', { compression: 'zstd', version: 2 }, 'IMAGE_UNSUPPORTED'],
    ['lazy refcounts in version 2', { lazyRefcounts: true, version: 2 }, 'IMAGE_UNSUPPORTED'],
    ['refcounts of 32 bits in version 2', { refcountBits: 32, version: 2 }, 'IMAGE_UNSUPPORTED'],
    [
      'a disk whose L1 table is too large',
      { clusterSize: 512, virtualSize: byteLength(2 ** 40) },
      'IMAGE_LIMIT',
    ],
    [
      'a backing name of 1024 bytes',
      { backing: { name: 'x'.repeat(1024), format: 'raw' } },
      'IMAGE_NO_ROOM',
    ],
    [
      'a backing name that does not fit',
      { clusterSize: 512, backing: { name: 'x'.repeat(400), format: 'raw' } },
      'IMAGE_NO_ROOM',
    ],
  ])('%s, and nothing is written', async (_, options, code) => {
    const disk = new MemoryDisk();
    const storage = await memoryBackend(disk).create('/image', { secret: false });
    await expect(
      qcow2.create(storage, { virtualSize: byteLength(MIB), ...options }),
    ).rejects.toMatchObject({ code });
    expect(await storage.length()).toBe(0);
  });
});

test('the largest disk of 512-byte clusters is made, and its last cluster written', async () => {
  const size = 128 * 2 ** 30;
  const disk = await created({ clusterSize: 512, virtualSize: byteLength(size) });
  {
    await using image = await openOn(disk, '/image', 'write');
    await image.write(guestOffset(size - 512), new Uint8Array(512).fill(5), { fill: null });
    await image.flush();
  }
  await using image = await openOn(disk, '/image', 'read');
  const seen = new Uint8Array(1024);
  await image.read(guestOffset(size - 1024), seen, null);
  expect([seen[0], seen[1023]]).toEqual([0, 5]);
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
});
