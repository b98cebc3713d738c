import type { Image } from '@downfold/image';
import { crashStates, MemoryDisk, memoryBackend, record } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { BARRIER, type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { GatedStorage, READ } from './gated-storage.ts';
import { openOn, range, readAll } from './support.ts';

/** Flushes, growth, relinks and checks run beside writes; each test holds one of them up at its worst moment. */

const SMALL = 512;
const plain = { fill: null };

async function gated(
  options: Omit<Qcow2CreateOptions, 'virtualSize'> & { virtualSize: number },
): Promise<{ disk: MemoryDisk; gate: GatedStorage; image: Image }> {
  const disk = new MemoryDisk();
  const gate = new GatedStorage(await memoryBackend(disk).create('/image', { secret: false }));
  const virtualSize = byteLength(options.virtualSize);
  const image = await qcow2.create(gate, { ...options, virtualSize });
  return { disk, gate, image };
}

const filled = (value: number, length = SMALL): Uint8Array => new Uint8Array(length).fill(value);

/** What another process finds after everything was flushed: no error, no leak, and the disk's content. */
async function after(disk: MemoryDisk, image: Image): Promise<Uint8Array> {
  await image.flush();
  await image[Symbol.asyncDispose]();
  await using again = await openOn(disk, '/image', 'read');
  expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  return await readAll(again);
}

describe('while a flush goes on', () => {
  test.each([BARRIER.mapping, BARRIER.release])(
    'clusters that it frees are not taken before their host space was given back (%s)',
    async (barrier) => {
      const { disk, gate, image } = await gated({ virtualSize: 64 * SMALL, clusterSize: SMALL });
      await image.write(guestOffset(0), filled(2, 8 * SMALL), plain);
      await image.flush();
      await image.deallocate(range(0, SMALL));
      // from here on the search for free clusters begins at the one that this frees
      await image.flush();
      await image.deallocate(range(2 * SMALL, 5 * SMALL));
      const held = gate.hold(barrier);
      const flushing = image.flush();
      await held.reached;
      await image.write(guestOffset(20 * SMALL), filled(3, 4 * SMALL), plain);
      held.release();
      await flushing;
      const view = await after(disk, image);
      expect(view.subarray(20 * SMALL, 24 * SMALL)).toEqual(filled(3, 4 * SMALL));
      expect(view.subarray(SMALL, 3 * SMALL)).toEqual(Uint8Array.of(...filled(2), ...filled(0)));
    },
  );

  test('tables that it is writing are not read back from the file, however many there are', async () => {
    const clusterSize = 2 << 20;
    const reach = (clusterSize / 8) * clusterSize;
    const { disk, gate, image } = await gated({ virtualSize: 12 * reach, clusterSize });
    const at = (table: number): number => table * reach;
    const put = (table: number, value: number): Promise<void> =>
      image.write(guestOffset(at(table)), filled(value), plain);
    for (let table = 0; table < 10; table++) await put(table, 1 + table);
    const held = gate.hold('L2 table');
    const flushing = image.flush();
    await held.reached;
    // more tables than are kept when nothing is being written
    await put(10, 11);
    await put(11, 12);
    for (let table = 0; table < 12; table++) {
      const seen = new Uint8Array(SMALL);
      await image.read(guestOffset(at(table)), seen, null);
      expect(seen[0], `table ${table}`).toBe(1 + table);
    }
    await image.write(guestOffset(at(3) + clusterSize), filled(33), plain);
    held.release();
    await flushing;
    await image.flush();
    await image[Symbol.asyncDispose]();
    await using again = await openOn(disk, '/image', 'read');
    expect(await again.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    const seen = new Uint8Array(SMALL);
    for (let table = 0; table < 12; table++) {
      await again.read(guestOffset(at(table)), seen, null);
      expect(seen[0], `table ${table}, read by another`).toBe(1 + table);
    }
  });

  test('what is written meanwhile is durable with the next one', async () => {
    const { disk, gate, image } = await gated({ virtualSize: 64 * SMALL, clusterSize: SMALL });
    await image.write(guestOffset(0), filled(1), plain);
    const held = gate.hold(BARRIER.content);
    const flushing = image.flush();
    await held.reached;
    await image.write(guestOffset(SMALL), filled(2), plain);
    await image.write(guestOffset(0), filled(3), plain);
    held.release();
    await flushing;
    expect((await after(disk, image)).subarray(0, 2 * SMALL)).toEqual(
      Uint8Array.of(...filled(3), ...filled(2)),
    );
  });

  test('a relink keeps the refcount table that it moves', async () => {
    // 64 clusters a block, 64 blocks a table: the table moves when cluster 4096 is taken
    const { disk, gate, image } = await gated({
      virtualSize: 4200 * SMALL,
      clusterSize: SMALL,
      refcountBits: 64,
      backing: { name: 'a', format: 'raw' },
    });
    await image.write(guestOffset(0), filled(1, 4100 * SMALL), plain);
    const held = gate.hold(BARRIER.refcountTableMoved);
    const flushing = image.flush();
    await held.reached;
    const relinking = image.setBacking({ name: 'b', format: 'qcow2' });
    const marking = image.setMark({ state: 'invalid', job: 'j', date: 'd' });
    held.release();
    await Promise.all([flushing, relinking, marking]);
    expect((await after(disk, image)).subarray(0, SMALL)).toEqual(filled(1));
    await using again = await openOn(disk, '/image', 'read');
    expect([again.backing?.name, again.mark?.state]).toEqual(['b', 'invalid']);
  });

  test('closing waits for it', async () => {
    const { disk, gate, image } = await gated({ virtualSize: 64 * SMALL, clusterSize: SMALL });
    await image.write(guestOffset(0), filled(1), plain);
    const held = gate.hold(BARRIER.content);
    const flushing = image.flush();
    await held.reached;
    const closing = image[Symbol.asyncDispose]();
    await expect(image.write(guestOffset(0), filled(2), plain)).rejects.toMatchObject({
      code: 'IMAGE_CLOSED',
    });
    held.release();
    await Promise.all([flushing, closing]);
    await using again = await openOn(disk, '/image', 'read');
    expect((await readAll(again)).subarray(0, SMALL)).toEqual(filled(1));
  });
});

describe('while a copy of many pieces goes on', () => {
  test('a flush makes none of its entries durable: what they point to is not there yet', async () => {
    const { disk, gate, image } = await gated({ virtualSize: 64 * SMALL, clusterSize: SMALL });
    await image.write(guestOffset(20 * SMALL), filled(1), plain);
    const source = await memoryBackend().create('/source', { secret: false });
    await source.write(hostOffset(0), filled(2, 4 * SMALL));
    const pieces = [0, 2, 3].map((cluster) => ({
      source,
      from: hostOffset(cluster * SMALL),
      offset: guestOffset(cluster * SMALL),
      length: byteLength(SMALL),
    }));
    const held = gate.hold('data');
    const copying = image.copyFrom(pieces, plain);
    await held.reached;
    await image.flush();
    await using crashed = await openOn(disk.copy(), '/image', 'read');
    const statuses: string[] = [];
    for await (const batch of crashed.extents(range(0, 64 * SMALL)))
      for (const { status, length } of batch) statuses.push(`${status} ${length / SMALL}`);
    expect(statuses).toEqual(['unallocated 20', 'data 1', 'unallocated 43']);
    expect(await crashed.check()).toMatchObject({ corruptions: 0, leaks: 3 });
    held.release();
    await copying;
    const view = await after(disk, image);
    for (const cluster of [0, 2, 3])
      expect(view.subarray(cluster * SMALL, (cluster + 1) * SMALL)).toEqual(filled(2));
    expect(view.subarray(SMALL, 2 * SMALL)).toEqual(filled(0));
  });
});

describe('while the disk grows', () => {
  test.each([BARRIER.l1Content, BARRIER.l1Switch, BARRIER.size])(
    'writes that need new L2 tables are in the new L1 table (%s)',
    async (barrier) => {
      const { disk, gate, image } = await gated({ virtualSize: 4000 * SMALL, clusterSize: SMALL });
      await image.write(guestOffset(0), filled(1), plain);
      const held = gate.hold(barrier);
      const growing = image.resize(byteLength(9000 * SMALL), plain);
      await held.reached;
      // 64 clusters a table
      const writing = image.write(guestOffset(640 * SMALL), filled(2), plain);
      const flushing = image.flush();
      held.release();
      await Promise.all([growing, writing, flushing]);
      const view = await after(disk, image);
      expect(view.length).toBe(9000 * SMALL);
      expect([view[0], view[640 * SMALL]]).toEqual([1, 2]);
    },
  );
});

describe('a check', () => {
  test('of an image that is being written finds no errors that are none', async () => {
    const { image } = await gated({ virtualSize: 256 * SMALL, clusterSize: SMALL });
    const works: Promise<unknown>[] = [];
    const reports: Promise<unknown>[] = [];
    for (let round = 0; round < 30; round++) {
      const at = (round * 7) % 200;
      works.push(image.write(guestOffset(at * SMALL), filled(round, 9 * SMALL), plain));
      works.push(image.deallocate(range(((round * 13) % 200) * SMALL, 5 * SMALL)));
      reports.push(image.check());
      if (round % 3 === 0) works.push(image.flush());
    }
    await Promise.all(works);
    for (const report of await Promise.all(reports))
      expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
    await image[Symbol.asyncDispose]();
  });
});

describe('what the header is to point to is durable before it does, whoever flushed the refcounts', () => {
  const date = '2026-11-25T00:00:00Z';
  const changes = [
    {
      what: 'bitmap directory',
      bitmaps: ['old', 'other'],
      change: (image: Qcow2) => image.bitmaps.remove('other'),
    },
    { what: 'snapshot table', bitmaps: [], change: (image: Qcow2) => image.snapshots.delete('1') },
    { what: 'L1 table', bitmaps: [], change: (image: Qcow2) => image.snapshots.apply('1') },
  ];
  test.each(changes)('$what', async ({ what, bitmaps, change }) => {
    const recording = record(new MemoryDisk());
    const { backend, log } = recording;
    const gate = new GatedStorage(await backend.create('/image', { secret: false }));
    await backend.flushDirectory('/', 'its name');
    const virtualSize = byteLength(256 * SMALL);
    await using image = await qcow2.create(gate, { virtualSize, clusterSize: SMALL });
    for (const [value, name] of ['one', 'two'].entries()) {
      await image.write(guestOffset(value * SMALL), filled(value + 1), plain);
      await image.snapshots.create({ name, date });
    }
    for (const name of bitmaps) await image.bitmaps.add({ name });
    await image.flush();
    const durable = log.length;
    const held = gate.hold(what);
    const changing = change(image);
    await held.reached;
    await image.flush();
    held.release();
    await changing;
    let judged = 0;
    for (const state of crashStates(recording, { exhaustive: 8 })) {
      if (Number(/@(\d+)/.exec(state.name)?.[1]) < durable) continue;
      await using found = await openOn(state.disk, '/image', 'read');
      expect((await readAll(found))[0], state.name).toBe(1);
      for (const { name } of await found.snapshots.list()) expect(['one', 'two']).toContain(name);
      for (const { name } of await found.bitmaps.list()) expect(bitmaps).toContain(name);
      judged++;
    }
    expect(judged).toBeGreaterThan(3);
  });
});

test('a compressed cluster that is compressed anew while it is read is not remembered as it was', async () => {
  const disk = new MemoryDisk();
  const gate = new GatedStorage(await memoryBackend(disk).create('/image', { secret: false }));
  const image = await qcow2.create(gate, {
    virtualSize: byteLength(4 * SMALL),
    clusterSize: SMALL,
  });
  await image.writeCompressed(guestOffset(0), filled(1));
  await image.flush();
  const held = gate.hold(READ);
  const early = image.read(guestOffset(0), new Uint8Array(8), null);
  await held.reached;
  await image.writeCompressed(guestOffset(0), filled(2));
  held.release();
  await early;
  // part of a cluster: the rest is what it had
  await image.write(guestOffset(100), filled(3, 10), plain);
  const expected = filled(2).fill(3, 100, 110);
  expect((await readAll(image)).subarray(0, SMALL)).toEqual(expected);
  expect((await after(disk, image)).subarray(0, SMALL)).toEqual(expected);
});
