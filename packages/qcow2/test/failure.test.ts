import type { Image } from '@downfold/image';
import { openBackend, type StorageBackend } from '@downfold/storage';
import { type FaultRule, type FaultyDriver, faulty } from '@downfold/storage/faults';
import { MemoryDisk, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { BARRIER, qcow2 } from '../src/index.ts';
import { openOn, range, readAll } from './support.ts';

/** What an image does after an operation of its file failed. */

const SMALL = 512;
const plain = { fill: null };
const filled = (value: number, length = SMALL): Uint8Array => new Uint8Array(length).fill(value);

interface Bed {
  readonly disk: MemoryDisk;
  readonly driver: FaultyDriver;
  readonly backend: StorageBackend;
  readonly image: Image;
}

/** An image with eight clusters of data, flushed. */
async function bed(clusters = 128): Promise<Bed> {
  const disk = new MemoryDisk();
  const driver = faulty(memoryBackendDriver(disk));
  const backend = openBackend(driver);
  const image = await qcow2.create(await backend.create('/image', { secret: false }), {
    virtualSize: byteLength(clusters * SMALL),
    clusterSize: SMALL,
    refcountBits: 64,
  });
  await image.write(guestOffset(0), filled(1, 8 * SMALL), plain);
  await image.flush();
  return { disk, driver, backend, image };
}

async function outcome(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'done',
    (error: { code?: string }) => error.code ?? String(error),
  );
}

/** Every member that changes something. */
const changes: Readonly<Record<string, (image: Image) => Promise<unknown>>> = {
  write: (image) => image.write(guestOffset(0), filled(9), plain),
  'write nothing': (image) => image.write(guestOffset(0), new Uint8Array(), plain),
  writeZeroes: (image) => image.writeZeroes(range(0, SMALL), plain),
  deallocate: (image) => image.deallocate(range(0, SMALL)),
  resize: (image) => image.resize(byteLength(256 * SMALL), plain),
  setBacking: (image) => image.setBacking({ name: 'b', format: 'raw' }),
  setMark: (image) => image.setMark({ state: 'invalid', job: 'j', date: 'd' }),
  flush: (image) => image.flush(),
  reclaimLeaks: (image) => image.reclaimLeaks(),
  check: (image) => image.check(),
};

/** Writes, releases and grows: every kind of metadata and every barrier of a flush. */
async function work(image: Image): Promise<void> {
  await image.write(guestOffset(8 * SMALL), filled(2, 80 * SMALL), plain);
  await image.deallocate(range(0, 2 * SMALL));
}

describe('a flush that fails', () => {
  const rules: readonly (readonly [name: string, rule: FaultRule])[] = [
    ...[BARRIER.content, BARRIER.refcountTable, BARRIER.mapping, BARRIER.release].map(
      (name) => [name, { operation: 'flush', name }] as const,
    ),
    ...['refcount block', 'L2 table', 'refcount table', 'L1 table'].flatMap((name) =>
      (['nothing', 'half', 'all'] as const).map(
        (done) =>
          [`write of a ${name}, ${done} of it done`, { operation: 'write', name, done }] as const,
      ),
    ),
    ['discard', { operation: 'discard' }],
  ];

  test.each(rules)(
    '%s: everything later is refused, also what waits behind it; nothing is ruined',
    async (_, rule) => {
      const { disk, driver, image } = await bed();
      await work(image);
      driver.inject(rule);
      const [first, second, third] = await Promise.all([
        outcome(image.flush()),
        outcome(image.write(guestOffset(120 * SMALL), filled(3), plain)),
        outcome(image.flush()),
      ]);
      expect(driver.fired.length).toBe(1);
      expect(first).toMatch(/^STORAGE_(FLUSH_FAILED|IO)$/);
      expect(second).toMatch(/^(done|IMAGE_CORRUPT)$/);
      expect(third).toBe('IMAGE_CORRUPT');
      driver.clear();
      for (const [name, change] of Object.entries(changes))
        expect(await outcome(change(image)), name).toBe('IMAGE_CORRUPT');
      await image[Symbol.asyncDispose]();
      await using again = await openOn(disk, '/image', 'write');
      expect(await again.check()).toMatchObject({ corruptions: 0 });
      await again.reclaimLeaks();
      expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      const view = await readAll(again);
      expect(view.subarray(2 * SMALL, 8 * SMALL)).toEqual(filled(1, 6 * SMALL));
      for (let at = 8 * SMALL; at < 88 * SMALL; at += SMALL)
        expect([0, 2], `guest byte ${at}`).toContain(view[at]);
    },
  );

  test.each(
    [
      ...['refcount block', 'L2 table'].map((name) => [name, 128] as const),
      // one that moves
      ['refcount table', 4096] as const,
    ].flatMap(([name, clusters]) =>
      (['nothing', 'half', 'all'] as const).map((done) => [name, done, clusters] as const),
    ),
  )(
    'on a full host, at a %s, %s of it written, is tried again when there is room: nothing is lost',
    async (name, done, clusters) => {
      const { disk, driver, image } = await bed(clusters);
      const end = clusters - 10;
      await image.write(guestOffset(8 * SMALL), filled(2, (end - 8) * SMALL), plain);
      await image.deallocate(range(0, 2 * SMALL));
      driver.inject({ operation: 'write', name, done, code: 'STORAGE_NO_SPACE', times: Infinity });
      expect(await outcome(image.flush())).toBe('STORAGE_NO_SPACE');
      // what changes meanwhile is not lost either
      await image.write(guestOffset(9 * SMALL), filled(3), plain);
      expect(await outcome(image.flush())).toBe('STORAGE_NO_SPACE');
      driver.clear();
      await image.write(guestOffset((end + 2) * SMALL), filled(4), plain);
      await image.flush();
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      await image[Symbol.asyncDispose]();
      await using again = await openOn(disk, '/image', 'read');
      expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      const expected = new Uint8Array(clusters * SMALL);
      expected.fill(1, 2 * SMALL, 8 * SMALL).fill(2, 8 * SMALL, end * SMALL);
      expected.fill(3, 9 * SMALL, 10 * SMALL).fill(4, (end + 2) * SMALL, (end + 3) * SMALL);
      expect(Buffer.compare(await readAll(again), expected)).toBe(0);
    },
  );

  test('reading goes on', async () => {
    const { driver, image } = await bed();
    driver.inject({ operation: 'flush' });
    await image.write(guestOffset(0), filled(2), plain);
    expect(await outcome(image.flush())).toBe('STORAGE_FLUSH_FAILED');
    expect((await readAll(image)).subarray(0, 2 * SMALL)).toEqual(
      Uint8Array.of(...filled(2), ...filled(1)),
    );
    await image[Symbol.asyncDispose]();
  });
});

describe('a write of guest data that fails', () => {
  test.each(['nothing', 'half', 'all'] as const)(
    '%s of it done: it can be tried again, and leaves no leak',
    async (done) => {
      const { disk, driver, image } = await bed();
      driver.inject({ operation: 'write', name: 'data', code: 'STORAGE_NO_SPACE', done });
      const write = (): Promise<void> =>
        image.write(guestOffset(20 * SMALL), filled(4, 3 * SMALL), plain);
      expect(await outcome(write())).toBe('STORAGE_NO_SPACE');
      await image.flush();
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      await write();
      await image.flush();
      await image[Symbol.asyncDispose]();
      await using again = await openOn(disk, '/image', 'read');
      expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      expect((await readAll(again)).subarray(20 * SMALL, 23 * SMALL)).toEqual(filled(4, 3 * SMALL));
    },
  );

  test('so can a copy whose source fails', async () => {
    const { driver, backend, image } = await bed();
    const source = await backend.create('/source', { secret: false });
    await source.write(guestOffset(0) as never, filled(7, 4 * SMALL));
    driver.inject({ operation: 'read', file: '/source' });
    const copy = (): Promise<void> =>
      image.copyFrom(
        [
          {
            source,
            from: 0 as never,
            offset: guestOffset(40 * SMALL),
            length: byteLength(4 * SMALL),
          },
        ],
        plain,
      );
    expect(await outcome(copy())).toBe('STORAGE_IO');
    await image.flush();
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await copy();
    await image.flush();
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
  });
});

describe('a copy of many pieces that fails', () => {
  test.each(['nothing', 'half', 'all'] as const)(
    'after %s of the bytes: no entry changes and nothing leaks',
    async (done) => {
      const { driver, backend, image } = await bed();
      const source = await backend.create('/source', { secret: false });
      await source.write(guestOffset(0) as never, filled(7, 4 * SMALL));
      const before = await readAll(image);
      driver.inject({ operation: 'copyFrom', name: 'data', done });
      const pieces = [40, 42, 43, 60].map((cluster, index) => ({
        source,
        from: (index * SMALL) as never,
        offset: guestOffset(cluster * SMALL),
        length: byteLength(SMALL),
      }));
      expect(await outcome(image.copyFrom(pieces, plain))).toBe('STORAGE_IO');
      await image.flush();
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      expect(await readAll(image)).toEqual(before);
      await image[Symbol.asyncDispose]();
    },
  );
});

describe('a change of the header that fails', () => {
  test.each(['setBacking', 'setMark', 'resize'])(
    '%s: the image takes no more writes',
    async (name) => {
      for (const operation of ['write', 'flush'] as const) {
        const { disk, driver, image } = await bed();
        driver.inject({ operation, ...(operation === 'write' ? { name: 'header' } : {}) });
        expect(await outcome((changes[name] as (typeof changes)[string])(image))).toMatch(
          /^STORAGE_/,
        );
        driver.clear();
        expect(await outcome(image.write(guestOffset(0), filled(9), plain))).toBe('IMAGE_CORRUPT');
        await image[Symbol.asyncDispose]();
        await using again = await openOn(disk, '/image', 'read');
        expect(await again.check()).toMatchObject({ corruptions: 0 });
        expect((await readAll(again)).subarray(0, 8 * SMALL)).toEqual(filled(1, 8 * SMALL));
      }
    },
  );
});

describe('every operation fails once, from the first to the last', () => {
  test('nothing is ruined, and what was flushed is there', async () => {
    let tried = 0;
    for (let nth = 1; ; nth++) {
      const { disk, driver, image } = await bed();
      driver.inject({ file: '/image', nth });
      const steps = [
        () => work(image),
        () => image.flush(),
        () => image.resize(byteLength(256 * SMALL), plain),
        () => image.setBacking({ name: 'b', format: 'raw' }),
        () => image.writeZeroes(range(100, 3000), plain),
        () => image.flush(),
      ];
      for (const step of steps) if ((await outcome(step())) !== 'done') break;
      await outcome(Promise.resolve(image[Symbol.asyncDispose]()));
      if (driver.fired.length === 0) break;
      tried++;
      await using again = await openOn(disk, '/image', 'write');
      expect(await again.check(), `failure ${nth}: ${JSON.stringify(driver.fired)}`).toMatchObject({
        corruptions: 0,
      });
      await again.reclaimLeaks();
      expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      expect((await readAll(again)).subarray(7 * SMALL, 8 * SMALL)).toEqual(filled(1));
    }
    expect(tried).toBeGreaterThan(20);
    console.log(`${tried} failures, one after the other`);
  });
});
