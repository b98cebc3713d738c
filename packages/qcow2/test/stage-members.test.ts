import { writeFileSync } from 'node:fs';
import { caseContext } from '@downfold/compliance';
import { type Image, ImageError, type ImageErrorCode, type Staging } from '@downfold/image';
import { openBackend, type StorageBackend } from '@downfold/storage';
import { MemoryDisk, memoryBackend, memoryBackendDriver, record } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
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
  soundByQemu,
} from './support.ts';

const IMAGE = '/image';
const KIB = 1024;
const SMALL = 512;
const UNDO = { name: 'undo', date: '2026-11-25T01:02:03.456Z' };
const NONE = { fill: null };

type Options = Omit<Qcow2CreateOptions, 'virtualSize'> & { readonly virtualSize: number };

const small: Options = { clusterSize: SMALL, virtualSize: 64 * SMALL };

/** An image on a disk of its own, its first `filled` bytes written, then crafted. */
async function made(
  options: Options,
  filled: number,
  craft: (craft: Craft) => void = () => {},
): Promise<{ readonly disk: MemoryDisk; readonly image: Image }> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create(IMAGE, { secret: false });
  const virtualSize = byteLength(options.virtualSize);
  const image = await qcow2.create(storage, { ...options, virtualSize });
  await image.write(guestOffset(0), content(filled), NONE);
  await image.flush();
  await image[Symbol.asyncDispose]();
  craft(new Craft(disk, IMAGE));
  return { disk, image: await openOn(disk, IMAGE, 'write') };
}

/** Bytes that compress. */
function content(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 64) bytes.fill(1 + ((at / 64) % 251), at, at + 48);
  return bytes;
}

function stage(image: Image, size: number = image.geometry.virtualSize): Promise<Staging> {
  return image.stage({ virtualSize: byteLength(size), from: null, fill: null });
}

function goOn(image: Image, { token }: Staging, size: number): Promise<Staging> {
  return image.stage({ virtualSize: byteLength(size), from: token, fill: null });
}

async function refused(work: Promise<unknown>, code: ImageErrorCode, says = /./): Promise<void> {
  const cause = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(cause instanceof ImageError)) throw new Error(`not refused: ${String(cause)}`);
  expect([cause.code, cause.message]).toEqual([code, expect.stringMatching(says)]);
}

async function seen(staging: Staging, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  await staging.read(guestOffset(0), bytes, null);
  return bytes;
}

function same(found: Uint8Array, wanted: Uint8Array, what: string): void {
  expect(Buffer.compare(found, wanted), what).toBe(0);
}

/** QEMU finds nothing wrong, and reads `wanted`. */
function judged(disk: MemoryDisk, wanted: Uint8Array): void {
  if (!haveQemu) return;
  using dir = scratch();
  dump(disk, IMAGE, dir.path('image'));
  soundByQemu(dir.path('image'));
  sameByQemu(dir.path('image'), wanted);
}

describe('while there is a staging', () => {
  test('the image shows what it showed, and nothing of its own mapping or content is written', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    const before = bytesOn(disk, IMAGE);
    const staging = await stage(image, 200 * SMALL);
    await staging.write(guestOffset(2 * SMALL), content(5 * SMALL + 17), NONE);
    await staging.writeZeroes(range(10 * SMALL, 3 * SMALL), NONE);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await staging.flush();
    await image.flush();
    same(await readAll(image), content(20 * SMALL + 44 * SMALL).fill(0, 20 * SMALL), 'the image');
    expect(image.geometry.virtualSize).toBe(64 * SMALL);
    const extents = [];
    for await (const batch of image.extents(range(0, 64 * SMALL))) extents.push(...batch);
    expect(extents.map(({ status, length }) => [status, length])).toEqual([
      ['data', 20 * SMALL],
      ['unallocated', 44 * SMALL],
    ]);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    // every cluster that was in use holds what it held, but for the refcounts of the new ones
    const after = bytesOn(disk, IMAGE);
    const differ: number[] = [];
    for (let at = 0; at < before.length; at += SMALL)
      if (Buffer.compare(before.subarray(at, at + SMALL), after.subarray(at, at + SMALL)) !== 0)
        differ.push(at / SMALL);
    expect(differ).toEqual([2]);
    await image[Symbol.asyncDispose]();
  });

  test('writing members of the image reject, and a second staging does', async () => {
    const { image } = await made(small, 4 * SMALL);
    const staging = await stage(image);
    const attempts: readonly (() => Promise<unknown>)[] = [
      () => image.write(guestOffset(0), new Uint8Array(1), NONE),
      () =>
        image.copyFrom(
          [
            {
              source: image.data,
              from: hostOffset(0),
              offset: guestOffset(0),
              length: byteLength(1),
            },
          ],
          NONE,
        ),
      () => image.writeZeroes(range(0, 1), NONE),
      () => image.deallocate(range(0, SMALL)),
      () => image.resize(byteLength(100 * SMALL), NONE),
      () => image.setBacking({ name: 'a', format: 'raw' }),
      () => image.setMark({ state: 'invalid', job: 'a', date: 'b' }),
      () => image.reclaimLeaks(),
      () => stage(image),
    ];
    for (const attempt of attempts)
      await refused(attempt(), 'IMAGE_UNSUPPORTED', /while there is a staging/);
    await staging.discard();
    for (const attempt of attempts.slice(0, -1)) await attempt();
  });

  test('writes of the staging, of its lanes and flushes at once all arrive', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    const staging = await stage(image);
    const bytes = caseContext(3).bytes(64 * SMALL);
    const pieces = Array.from({ length: 32 }, (_, index) => index * 1024);
    await Promise.all(
      pieces.flatMap((at) => [
        staging.write(guestOffset(at), bytes.subarray(at, at + 1024), NONE),
        ...(at % 8192 === 0 ? [staging.flush(), image.flush(), readAll(image)] : []),
      ]),
    );
    await staging.publish({ keepUndo: null });
    same(await readAll(image), bytes, 'the image');
    judged(disk, bytes);
  });

  test.each<[string, Options, number]>([
    ['refcounts of one bit', { ...small, refcountBits: 1 }, 20 * SMALL],
    ['a version 2 image that grows', { ...small, version: 2 }, 70 * SMALL],
  ])(
    'an undo snapshot that cannot be kept is refused before anything is staged: %s',
    async (_, options, size) => {
      const { disk, image } = await made({ ...options, virtualSize: 20 * SMALL }, 20 * SMALL);
      const keepUndo = { name: 'before', date: '2024-02-29T12:00:00Z' };
      const staging = image.stage({
        virtualSize: byteLength(size),
        from: null,
        fill: null,
        keepUndo,
      });
      await expect(staging).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      await image.write(guestOffset(0), content(SMALL), NONE);
      await image[Symbol.asyncDispose]();
      judged(disk, content(20 * SMALL));
    },
  );

  test('persistent bitmaps are in use from the publish on, and not when nothing changes', async () => {
    let flagsAt = 0;
    const { disk, image } = await made({ ...small, clusterSize: 4 * KIB }, 0, (craft) => {
      flagsAt = craft.bitmap();
    });
    const inUse = (): number => new Craft(disk, IMAGE).word(flagsAt) & 1;
    const staging = await stage(image);
    await staging.write(guestOffset(0), new Uint8Array(SMALL).fill(1), NONE);
    await staging.flush();
    expect(inUse()).toBe(0);
    await staging.discard();
    await (await stage(image)).publish({ keepUndo: null });
    expect(inUse()).toBe(0);
    const other = await stage(image);
    await other.write(guestOffset(0), new Uint8Array(SMALL).fill(1), NONE);
    await other.publish({ keepUndo: null });
    expect(inUse()).toBe(1);
  });
});

describe('the new mapping', () => {
  test.each<[string, Options]>([
    ['512 B', small],
    ['4 KiB', { clusterSize: 4 * KIB, virtualSize: 900 * KIB }],
    ['64 KiB', { virtualSize: 5000 * KIB }],
    ['2 MiB', { clusterSize: 2048 * KIB, virtualSize: 17_000 * KIB }],
    ['extended L2, 64 KiB', { extendedL2: true, virtualSize: 5000 * KIB }],
    [
      'extended L2, 2 MiB',
      { extendedL2: true, clusterSize: 2048 * KIB, virtualSize: 17_000 * KIB },
    ],
    ['version 2, 64 KiB', { version: 2, virtualSize: 5000 * KIB }],
    ['refcounts of one bit', { ...small, refcountBits: 1 }],
    ['refcounts of 64 bits', { ...small, refcountBits: 64 }],
  ])('publishes as QEMU reads it, %s', async (_, options) => {
    const size = options.virtualSize;
    const { disk, image } = await made(options, Math.floor(size / 2));
    const grown = size + 3 * image.geometry.clusterSize + SMALL;
    const wanted = new Uint8Array(grown);
    wanted.set(content(Math.floor(size / 2)));
    const staging = await stage(image, grown);
    const at = Math.floor(size / 4) + 100;
    await staging.write(guestOffset(at), content(SMALL * 5), NONE);
    wanted.set(content(SMALL * 5), at);
    await staging.writeZeroes(range(0, Math.floor(size / 8)), NONE);
    wanted.fill(0, 0, Math.floor(size / 8));
    await staging.write(guestOffset(grown - 7), content(7), NONE);
    wanted.set(content(7), grown - 7);
    same(await seen(staging, grown), wanted, 'the staging');
    await staging.publish({ keepUndo: null });
    expect(image.geometry.virtualSize).toBe(grown);
    same(await readAll(image), wanted, 'the image');
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    judged(disk, wanted);
  });

  test.each(['zlib', 'zstd'])(
    'replaces clusters that QEMU compressed with %s',
    async (compression) => {
      if (!haveQemu) return;
      using dir = scratch();
      const wanted = content(640 * KIB);
      writeFileSync(dir.path('raw'), wanted);
      run(
        'qemu-img',
        'convert',
        '-c',
        '-O',
        'qcow2',
        '-o',
        `compression_type=${compression}`,
        dir.path('raw'),
        dir.path('image'),
      );
      const disk = new MemoryDisk();
      await load(disk, IMAGE, dir.path('image'));
      const image = await openOn(disk, IMAGE, 'write');
      const staging = await stage(image);
      await staging.write(guestOffset(70 * KIB), content(KIB), NONE);
      await staging.writeZeroes(range(256 * KIB, 128 * KIB), NONE);
      wanted.set(content(KIB), 70 * KIB);
      wanted.fill(0, 256 * KIB, 384 * KIB);
      await staging.publish({ keepUndo: null });
      judged(disk, wanted);
    },
  );

  test('hides what lies below in the area that is new, and what was left there', async () => {
    const backing = { name: 'below', format: 'raw' };
    const { disk, image } = await made(
      { ...small, virtualSize: 10 * SMALL, backing },
      10 * SMALL,
      (craft) =>
        // shrunk, as QEMU leaves it: the last clusters are mapped behind the end
        craft.patch({ size: 7 * SMALL + 0 }),
    );
    const below = async (_: number, target: Uint8Array): Promise<void> => void target.fill(0xee);
    const staging = await image.stage({
      virtualSize: byteLength(40 * SMALL),
      from: null,
      fill: below,
    });
    await staging.publish({ keepUndo: null });
    const shown = await readAll(image, below);
    const wanted = new Uint8Array(40 * SMALL);
    wanted.set(content(7 * SMALL));
    same(shown, wanted, 'the image');
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
    void disk;
  });

  test('has whole sectors, as a resize gives them', async () => {
    const { disk, image } = await made(small, 4 * SMALL);
    const staging = await stage(image, 70 * SMALL + 1);
    expect(staging.token['virtualSize']).toBe(71 * SMALL);
    await image[Symbol.asyncDispose]();
    await using next = await openOn(disk, IMAGE, 'write');
    await (await goOn(next, staging, 70 * SMALL + 1)).publish({ keepUndo: null });
    expect(next.geometry.virtualSize).toBe(71 * SMALL);
    judged(disk, await readAll(next));
  });

  test('keeps L1 entries behind the disk, which a shrink leaves, and never shows what they map', async () => {
    const { disk, image } = await made(
      { ...small, virtualSize: 300 * SMALL },
      300 * SMALL,
      (craft) => craft.patch({ size: 10 * SMALL }),
    );
    const staging = await stage(image, 20 * SMALL);
    await staging.publish({ keepUndo: null });
    const { token } = staging;
    const shorter = { ...token, l1Offset: (token['l1Offset'] as number) - SMALL, l1Size: 1 };
    await refused(image.reclaimLeaks({ keep: shorter }), 'IMAGE_UNSUPPORTED', /not of a staging/);
    await image.resize(byteLength(300 * SMALL), NONE);
    await image.flush();
    const wanted = new Uint8Array(300 * SMALL);
    wanted.set(content(10 * SMALL));
    same(await readAll(image), wanted, 'the image');
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    judged(disk, wanted);
  });

  test('has more L2 tables than wait for one flush, published with an undo snapshot', async () => {
    const clusterSize = 2048 * KIB;
    const reach = (clusterSize / 8) * clusterSize;
    const { image } = await made({ clusterSize, virtualSize: 10 * reach }, 0);
    for (let table = 0; table < 10; table++)
      await image.write(guestOffset(table * reach), content(SMALL), NONE);
    const staging = await stage(image);
    await staging.write(guestOffset(SMALL), content(SMALL), NONE);
    await staging.publish({ keepUndo: UNDO });
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 10 });
  });
});

describe('after the end', () => {
  test.each(['publish', 'discard'] as const)(
    'of a %s the members of the staging reject',
    async (end) => {
      const { image } = await made(small, 4 * SMALL);
      const staging = await stage(image);
      await (end === 'publish' ? staging.publish({ keepUndo: null }) : staging.discard());
      await refused(staging.read(guestOffset(0), new Uint8Array(1), null), 'IMAGE_CLOSED');
      await refused(staging.write(guestOffset(0), new Uint8Array(1), NONE), 'IMAGE_CLOSED');
      await refused(staging.flush(), 'IMAGE_CLOSED');
      await refused(staging.publish({ keepUndo: null }), 'IMAGE_CLOSED');
      await refused(staging.discard(), 'IMAGE_CLOSED');
    },
  );

  test('of the image the members of the staging reject', async () => {
    const { image } = await made(small, 4 * SMALL);
    const staging = await stage(image);
    await image[Symbol.asyncDispose]();
    await refused(staging.read(guestOffset(0), new Uint8Array(1), null), 'IMAGE_CLOSED');
    await refused(staging.write(guestOffset(0), new Uint8Array(1), NONE), 'IMAGE_CLOSED');
    await refused(staging.publish({ keepUndo: null }), 'IMAGE_CLOSED');
  });

  test('nothing of a discarded staging is written any more', async () => {
    const { disk, image: closed } = await made(small, 20 * SMALL);
    await closed[Symbol.asyncDispose]();
    const recording = record(disk);
    const image = await qcow2.open(await recording.backend.open(IMAGE, 'write'), { mode: 'write' });
    const staging = await stage(image, 300 * SMALL);
    await staging.write(guestOffset(0), content(4 * SMALL), NONE);
    await staging.write(guestOffset(250 * SMALL), content(4 * SMALL), NONE);
    const before = recording.log.length;
    await staging.discard();
    const written = recording.log
      .slice(before)
      .flatMap((entry) => (entry.kind === 'file' ? [entry.what] : []));
    expect(new Set(written)).toEqual(new Set(['refcount block', 'discard']));
  });

  test('a discarded staging leaves the image as it was, and no leak', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    const staging = await stage(image, 300 * SMALL);
    await staging.write(guestOffset(0), content(40 * SMALL), NONE);
    await staging.flush();
    await staging.writeZeroes(range(0, 10 * SMALL), NONE);
    await staging.discard();
    const wanted = new Uint8Array(64 * SMALL);
    wanted.set(content(20 * SMALL));
    same(await readAll(image), wanted, 'the image');
    judged(disk, wanted);
  });

  test('the token of a published staging says so; what a crash kept is given back', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    const staging = await stage(image);
    await staging.write(guestOffset(0), content(3 * SMALL).reverse(), NONE);
    await staging.publish({ keepUndo: null });
    await image[Symbol.asyncDispose]();
    // as after a crash between the publish and the releases
    new Craft(disk, IMAGE).append(new Uint8Array(4 * SMALL));
    await using next = await openOn(disk, IMAGE, 'write');
    const again = await goOn(next, staging, 64 * SMALL);
    expect([again.published, again.token]).toEqual([true, staging.token]);
    same(await seen(again, 64 * SMALL), await readAll(next), 'what it shows');
    await refused(
      again.write(guestOffset(0), new Uint8Array(1), NONE),
      'IMAGE_UNSUPPORTED',
      /was published/,
    );
    await refused(again.writeZeroes(range(0, 1), NONE), 'IMAGE_UNSUPPORTED', /was published/);
    await refused(again.discard(), 'IMAGE_UNSUPPORTED', /was published/);
    await again.flush();
    expect(await next.check()).toMatchObject({ corruptions: 0, leaks: 4 });
    await again.publish({ keepUndo: null });
    expect(await next.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('a token that was discarded, or of which a crash left a part, can only be discarded', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    const staging = await stage(image);
    await staging.write(guestOffset(0), content(3 * SMALL).reverse(), NONE);
    await staging.flush();
    await image[Symbol.asyncDispose]();
    const craft = new Craft(disk, IMAGE);
    craft.addReference(staging.token['l1Offset'] as number, -1);
    await using next = await openOn(disk, IMAGE, 'write');
    const again = await goOn(next, staging, 64 * SMALL);
    expect(again.published).toBe(false);
    await refused(seen(again, 1), 'IMAGE_UNSUPPORTED', /was discarded/);
    await refused(again.flush(), 'IMAGE_UNSUPPORTED', /was discarded/);
    await refused(again.publish({ keepUndo: null }), 'IMAGE_UNSUPPORTED', /was discarded/);
    expect((await next.check()).leaks).toBeGreaterThan(0);
    await again.discard();
    expect(await next.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('tokens whose clusters belong to others by now are refused, and the image is left alone', async () => {
    const { image } = await made(small, 4 * SMALL);
    const staging = await stage(image);
    await staging.write(guestOffset(0), content(20 * SMALL), NONE);
    await staging.discard();
    await image.write(guestOffset(0), content(40 * SMALL), NONE);
    await image.flush();
    const shown = await readAll(image);
    await refused(goOn(image, staging, 64 * SMALL), 'IMAGE_CORRUPT', /worse than leaks/);
    same(await readAll(image), shown, 'the image');
    await image.write(guestOffset(0), content(1), NONE);
  });

  test('tokens of a staging that was published, then outgrown, are refused', async () => {
    const { image } = await made(small, 4 * SMALL);
    const staging = await stage(image);
    await staging.publish({ keepUndo: null });
    await image.resize(byteLength(5000 * SMALL), NONE);
    await refused(goOn(image, staging, 64 * SMALL), 'IMAGE_UNSUPPORTED', /not of a staging/);
  });
});

describe('refused', () => {
  test('an image opened for reading', async () => {
    const { disk } = await made(small, 0);
    await using image = await openOn(disk, IMAGE, 'read');
    await refused(stage(image), 'IMAGE_READ_ONLY');
  });

  test('a smaller disk, one above the limit, and growth of a version 2 image with snapshots', async () => {
    const { image } = await made(small, 0);
    await refused(stage(image, 63 * SMALL), 'IMAGE_UNSUPPORTED', /shrinking/);
    await refused(stage(image, 2 ** 50), 'IMAGE_LIMIT');
    const old = await made({ ...small, version: 2 }, SMALL, (craft) => craft.snapshot());
    await refused(
      stage(old.image, 65 * SMALL),
      'IMAGE_UNSUPPORTED',
      /version 2 image with internal snapshots/,
    );
    await (await stage(old.image)).discard();
    expect(await old.image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('tokens that are none', async () => {
    const { image } = await made(small, 20 * SMALL);
    const staging = await stage(image);
    const { token } = staging;
    await image[Symbol.asyncDispose]();
    const { image: other } = await made(small, 20 * SMALL);
    for (const wrong of [
      {},
      { ...token, l1Offset: 0 },
      { ...token, l1Offset: -SMALL },
      { ...token, l1Offset: (token['l1Offset'] as number) + 8 },
      { ...token, l1Offset: 2 ** 40 },
      { ...token, l1Offset: Number.NaN },
      { ...token, l1Size: 0 },
      { ...token, l1Size: 2 ** 30 },
      { ...token, virtualSize: SMALL },
      { ...token, virtualSize: 2 ** 40 },
    ]) {
      await refused(
        other.stage({ virtualSize: byteLength(64 * SMALL), from: wrong, fill: null }),
        'IMAGE_UNSUPPORTED',
        /not of a staging of this image/,
      );
      await refused(other.reclaimLeaks({ keep: wrong }), 'IMAGE_UNSUPPORTED', /not of a staging/);
    }
    await other.write(guestOffset(0), content(1), NONE);
  });

  test('to go on with another virtual size', async () => {
    const { disk, image } = await made(small, 0);
    const staging = await stage(image);
    await image[Symbol.asyncDispose]();
    await using next = await openOn(disk, IMAGE, 'write');
    await refused(
      goOn(next, staging, 65 * SMALL),
      'IMAGE_UNSUPPORTED',
      /begun with a virtual size of 32768/,
    );
    await (await goOn(next, staging, 64 * SMALL)).discard();
  });

  test('a token that points to what is no L1 table', async () => {
    const { disk, image } = await made(small, 20 * SMALL);
    await image[Symbol.asyncDispose]();
    const craft = new Craft(disk, IMAGE);
    const l1Offset = craft.append(caseContext(5).bytes(SMALL));
    const token = { l1Offset, l1Size: 1, virtualSize: 64 * SMALL };
    await using next = await openOn(disk, IMAGE, 'write');
    await refused(
      next.stage({ virtualSize: byteLength(64 * SMALL), from: token, fill: null }),
      'IMAGE_CORRUPT',
    );
    expect(await next.reclaimLeaks()).toBe(1);
  });
});

/** A backend whose n-th write fails, as on a full disk. */
function failing(disk: MemoryDisk, n: number): StorageBackend {
  const driver = memoryBackendDriver(disk);
  let writes = 0;
  return openBackend({
    ...driver,
    open: async (path, mode) => {
      const file = await driver.open(path, mode);
      const write = file.write.bind(file);
      file.write = async (...args) => {
        if (++writes === n) throw new Error('no space');
        await write(...args);
      };
      return file;
    },
  });
}

describe('when the n-th write fails', () => {
  test.each([null, UNDO])(
    'nothing is lost, and a discard or a reclaim gives everything back, keepUndo %o',
    async (keepUndo) => {
      const { disk: initial, image: first } = await made(
        { ...small, refcountBits: 32 },
        20 * SMALL,
        (craft) => craft.compress([3, 4]),
      );
      const old = await readAll(first);
      await first[Symbol.asyncDispose]();
      const wanted = new Uint8Array(100 * SMALL);
      wanted.set(old);
      wanted.set(content(6 * SMALL), SMALL + 9);
      wanted.fill(0, 12 * SMALL, 15 * SMALL);
      wanted.set(content(SMALL), 90 * SMALL);
      const outcomes = new Set<string>();
      for (let n = 1; !outcomes.has('no failure'); n++) {
        const disk = initial.copy();
        let image: Awaited<ReturnType<typeof openOn>> = await qcow2.open(
          await failing(disk, n).open(IMAGE, 'write'),
          {
            mode: 'write',
          },
        );
        let staging: Staging | null = null;
        try {
          staging = await stage(image, 100 * SMALL);
          await staging.write(guestOffset(SMALL + 9), content(6 * SMALL), NONE);
          await staging.flush();
          await staging.writeZeroes(range(12 * SMALL, 3 * SMALL), NONE);
          await staging.write(guestOffset(90 * SMALL), content(SMALL), NONE);
          await staging.publish({ keepUndo });
          outcomes.add('no failure');
        } catch {
          const discarded = await (
            staging?.discard() ?? Promise.reject(new Error('no staging'))
          ).then(
            () => true,
            () => false,
          );
          outcomes.add(discarded ? 'discarded' : 'reclaimed');
          if (!discarded) {
            await image[Symbol.asyncDispose]();
            image = await openOn(disk, IMAGE, 'write');
            await image.reclaimLeaks();
          }
        }
        const shown = await readAll(image);
        if (Buffer.compare(shown, old) !== 0) same(shown, wanted, `the image, write ${n}`);
        expect(await image.check(), `write ${n}`).toMatchObject({ corruptions: 0, leaks: 0 });
        await image[Symbol.asyncDispose]();
      }
      expect(outcomes).toEqual(new Set(['discarded', 'reclaimed', 'no failure']));
    },
  );
});

describe('an undo snapshot', () => {
  test.skipIf(!haveQemu).each<[string, Options]>([
    ['512 B', small],
    ['version 2', { virtualSize: 3000 * KIB, version: 2 }],
    ['extended L2', { virtualSize: 3000 * KIB, extendedL2: true }],
    ['2 MiB', { virtualSize: 17_000 * KIB, clusterSize: 2048 * KIB }],
  ])('brings back, by QEMU, content and size, %s', async (_, options) => {
    const size = options.virtualSize;
    const { disk, image } = await made(options, Math.floor(size / 2));
    const old = await readAll(image);
    const grown = options.version === 2 ? size : size * 3;
    const staging = await stage(image, grown);
    await staging.write(guestOffset(SMALL), content(Math.floor(size / 4)).reverse(), NONE);
    await staging.writeZeroes(range(Math.floor(size / 3), Math.floor(size / 6)), NONE);
    await staging.publish({ keepUndo: UNDO });
    judged(disk, await readAll(image));
    using dir = scratch();
    const path = dir.path('image');
    dump(disk, IMAGE, path);
    const { snapshots } = JSON.parse(run('qemu-img', 'info', '-f', 'qcow2', '--output=json', path));
    expect(snapshots).toMatchObject([
      {
        id: '1',
        name: UNDO.name,
        'vm-state-size': 0,
        'date-sec': 1_795_568_523,
        'date-nsec': 456_000_000,
      },
    ]);
    run('qemu-img', 'snapshot', '-a', UNDO.name, path);
    run('qemu-img', 'snapshot', '-d', UNDO.name, path);
    sameByQemu(path, old);
    const facts = JSON.parse(run('qemu-img', 'info', '-f', 'qcow2', '--output=json', path));
    expect(facts).toMatchObject({ 'virtual-size': size });
    expect(facts).not.toHaveProperty('snapshots');
    const { corruptions = 0, leaks = 0 } = qemuCheck(path);
    expect({ corruptions, leaks }).toEqual({ corruptions: 0, leaks: 0 });
  });

  test.skipIf(!haveQemu)('keeps a disk of no bytes, which has no L1 table', async () => {
    using dir = scratch();
    run('qemu-img', 'create', '-q', '-f', 'qcow2', dir.path('image'), '0');
    const disk = new MemoryDisk();
    await load(disk, IMAGE, dir.path('image'));
    await using image = await openOn(disk, IMAGE, 'write');
    const staging = await stage(image, 100 * KIB);
    await staging.write(guestOffset(0), content(KIB), NONE);
    await staging.publish({ keepUndo: UNDO });
    judged(disk, await readAll(image));
    dump(disk, IMAGE, dir.path('image'));
    run('qemu-img', 'snapshot', '-a', UNDO.name, dir.path('image'));
    expect(run('qemu-img', 'check', dir.path('image'))).toMatch(/No errors/);
  });

  test('is refused up front where it cannot be, and the staging goes on', async () => {
    const cases: readonly (readonly [Options, string, string, ImageErrorCode, RegExp, number?])[] =
      [
        [{ ...small, refcountBits: 1 }, 'a', UNDO.date, 'IMAGE_UNSUPPORTED', /one bit/],
        [{ ...small, version: 2 }, 'a', UNDO.date, 'IMAGE_UNSUPPORTED', /version 2/, 70 * SMALL],
        [small, '', UNDO.date, 'IMAGE_UNSUPPORTED', /0 bytes/],
        [small, 'é'.repeat(128), UNDO.date, 'IMAGE_UNSUPPORTED', /256 bytes/],
        [small, 'a', 'yesterday', 'IMAGE_UNSUPPORTED', /yesterday/],
        [small, 'a', '2200-01-01', 'IMAGE_UNSUPPORTED', /2200/],
      ];
    for (const [options, name, date, code, says, size = 64 * SMALL] of cases) {
      const { disk, image } = await made(options, 20 * SMALL);
      const staging = await stage(image, size);
      await staging.write(guestOffset(0), content(SMALL).reverse(), NONE);
      const before = bytesOn(disk, IMAGE);
      await refused(staging.publish({ keepUndo: { name, date } }), code, says);
      same(bytesOn(disk, IMAGE), before, 'the file');
      await staging.publish({ keepUndo: null });
      judged(disk, await readAll(image));
    }
  });

  test('needs another name than those that there are, and refcounts that can count it', async () => {
    const { disk, image } = await made({ ...small, refcountBits: 2 }, 20 * SMALL, (craft) =>
      craft.snapshot('first'),
    );
    const first = await stage(image);
    await refused(
      first.publish({ keepUndo: { ...UNDO, name: 'first' } }),
      'IMAGE_UNSUPPORTED',
      /name first/,
    );
    await first.publish({ keepUndo: UNDO });
    const second = await stage(image);
    await refused(second.publish({ keepUndo: { ...UNDO, name: 'b' } }), 'IMAGE_NO_SPACE', /2 bits/);
    await second.discard();
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    judged(disk, await readAll(image));
  });
});
