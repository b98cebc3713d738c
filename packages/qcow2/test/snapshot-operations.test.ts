import { readFileSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import { openBackend } from '@downfold/storage';
import { faulty } from '@downfold/storage/faults';
import { MemoryDisk, memoryBackend, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2, qcow2 } from '../src/index.ts';
import { snapshotHead } from '../src/structures.ts';
import { Craft } from './craft.ts';
import {
  dump,
  haveQemu,
  load,
  openOn,
  range,
  readAll,
  run,
  sameByQemu,
  scratch,
  seeds,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const SIZE = 640 * KIB;
const DATE = '2026-11-25T12:34:56.789Z';
const plain = { fill: null };

/** Options of `qemu-img create`. */
const shapes = [
  'refcount_bits=16',
  'refcount_bits=4',
  'refcount_bits=64',
  'cluster_size=512',
  'cluster_size=2M',
  'extended_l2=on',
  'compat=0.10',
];

/** What each snapshot shows by QEMU, by id. */
function viewsByQemu(path: string, raw: string): ReadonlyMap<string, Uint8Array> {
  const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as {
    snapshots?: readonly { id: string }[];
  };
  return new Map(
    (info.snapshots ?? []).map(({ id }) => {
      run('qemu-img', 'convert', '-l', `snapshot.id=${id}`, '-f', 'qcow2', '-O', 'raw', path, raw);
      return [id, readFileSync(raw)];
    }),
  );
}

async function sound(image: Qcow2): Promise<void> {
  const found: string[] = [];
  await image.check({ onFinding: ({ message }) => found.push(message) });
  expect(found).toEqual([]);
}

describe.skipIf(!haveQemu)('random snapshots by Downfold and by QEMU in turns', () => {
  const histories = seeds(perTier({ quick: 2, ci: 14, long: 210 })).map(
    (seed) => [seed, shapes[(seed - 1) % shapes.length] as string] as const,
  );
  test.each(histories)('seed %i, %s', async (seed, option) => {
    using dir = scratch();
    const [path, raw] = [dir.path('image.qcow2'), dir.path('view.raw')];
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', option, path, String(SIZE));
    const { bytes, integer } = caseContext(seed);
    const model = new Uint8Array(SIZE);
    const views = new Map<string, Uint8Array>();
    const pick = (): string => [...views.keys()][integer(views.size)] as string;
    const newest = (ids: readonly string[]): string => ids.find((id) => !views.has(id)) as string;
    for (let round = 0; round < perTier({ quick: 2, ci: 3, long: 4 }); round++) {
      const disk = new MemoryDisk();
      await load(disk, '/image', path);
      {
        await using image = await openOn(disk, '/image', 'write');
        for (let turn = 0; turn < 6; turn++) {
          const at = integer(SIZE - 50_000);
          const source = bytes(1 + integer(50_000));
          await image.write(guestOffset(at), source, plain);
          model.set(source, at);
          if (turn % 3 === 0) {
            const unit = Math.min(image.geometry.allocationGranularity, SIZE);
            await image.deallocate(range((integer(4) * unit) % SIZE, unit));
            model.set(await readAll(image));
          }
          const what = integer(4);
          if (what < 2 && views.size < 8) {
            const { id } = await image.snapshots.create({ name: `ours ${turn}`, date: DATE });
            views.set(id, model.slice());
          } else if (what === 2 && views.size > 0) {
            const id = pick();
            await image.snapshots.apply(id);
            model.set(views.get(id) as Uint8Array);
          } else if (what === 3 && views.size > 0) {
            const id = pick();
            await image.snapshots.delete(id);
            views.delete(id);
          }
        }
        await image.flush();
        await sound(image);
        for (const { id } of await image.snapshots.list()) {
          await using snapshot = await image.snapshots.open(id);
          expect(Buffer.compare(await readAll(snapshot), views.get(id) as Uint8Array), id).toBe(0);
        }
      }
      dump(disk, '/image', path);
      soundByQemu(path);
      sameByQemu(path, model);
      expect(viewsByQemu(path, raw)).toEqual(
        new Map([...views].map(([id, view]) => [id, Buffer.from(view)])),
      );
      // QEMU's turn, on what Downfold left
      run('qemu-io', '-f', 'qcow2', '-c', `write -P ${round + 1} ${64 * KIB * round} 40k`, path);
      model.fill(round + 1, 64 * KIB * round, 64 * KIB * round + 40 * KIB);
      if (views.size < 8) {
        run('qemu-img', 'snapshot', '-c', `theirs ${round}`, path);
        views.set(newest([...viewsByQemu(path, raw).keys()]), model.slice());
      }
      const id = pick();
      run('qemu-img', 'snapshot', '-a', id, path);
      model.set(views.get(id) as Uint8Array);
      soundByQemu(path);
    }
  });
});

async function small(virtualSize = 64 * 512): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(virtualSize),
    clusterSize: 512,
  });
  await image.write(guestOffset(0), new Uint8Array(8 * 512).fill(1), plain);
  await image.flush();
  return disk;
}

test('a snapshot of another size brings its size back', async () => {
  const disk = await small();
  await using image = await openOn(disk, '/image', 'write');
  const { id } = await image.snapshots.create({ name: 'small', date: DATE });
  await image.resize(byteLength(200 * 512), plain);
  await image.write(guestOffset(190 * 512), new Uint8Array(512).fill(2), plain);
  const large = await image.snapshots.create({ name: 'large', date: DATE });
  await image.snapshots.apply(id);
  expect(image.geometry.virtualSize).toBe(64 * 512);
  await image.snapshots.apply(large.id);
  expect(image.geometry.virtualSize).toBe(200 * 512);
  expect((await readAll(image))[190 * 512]).toBe(2);
  await sound(image);
});

test('what a snapshot says of itself, and its machine state, stay through changes of the table', async () => {
  const disk = await small();
  const craft = new Craft(disk, '/image');
  craft.snapshot('machine');
  // state size, clock, and extra data
  craft.setWord(craft.header.snapshotsOffset + 28, 77);
  craft.setWord(craft.header.snapshotsOffset + 44, 99);
  await using image = await openOn(disk, '/image', 'write');
  const [before] = await image.snapshots.list();
  expect(before).toMatchObject({ name: 'machine', stateBytes: 99, clock: '77' });
  const bytes = craft.bytes(craft.header.snapshotsOffset, 64);
  const { id } = await image.snapshots.create({ name: 'machine', date: DATE });
  expect(id).not.toBe(before?.id);
  await image.snapshots.delete(id);
  expect(await image.snapshots.list()).toEqual([before]);
  expect(craft.bytes(craft.header.snapshotsOffset, 64)).toEqual(bytes);
});

test('refused, and nothing changes: an unknown id, a name too long, one-bit refcounts, a damaged image, bitmaps', async () => {
  const disk = await small();
  const image = await openOn(disk, '/image', 'write');
  for (const operation of ['apply', 'delete', 'open'] as const)
    await expect(image.snapshots[operation]('7')).rejects.toMatchObject({ code: 'IMAGE_RANGE' });
  const long = { name: 'x'.repeat(256), date: DATE };
  await expect(image.snapshots.create(long)).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
  await sound(image);
  const { id } = await image.snapshots.create({ name: 'one', date: DATE });
  await image[Symbol.asyncDispose]();
  const craft = new Craft(disk, '/image');
  craft.bitmap();
  {
    await using marked = await openOn(disk, '/image', 'write');
    await expect(marked.snapshots.apply(id)).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
    await marked.snapshots.delete(id);
    const again = await marked.snapshots.create({ name: 'one', date: DATE });
    craft.addReference(craft.header.l1TableOffset, -1);
    await expect(marked.snapshots.delete(again.id)).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
    });
    await expect(marked.snapshots.create({ name: 'two', date: DATE })).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
    });
    expect(await marked.snapshots.list()).toEqual([again]);
  }
});

test('a full host is what is said when there is no room for a snapshot', async () => {
  const disk = await small();
  const driver = faulty(memoryBackendDriver(disk));
  const image = await qcow2.open(await openBackend(driver).open('/image', 'write'), {
    mode: 'write',
  });
  driver.inject({ operation: 'write', name: 'L2 table', code: 'STORAGE_NO_SPACE' });
  const create = () => image.snapshots.create({ name: 'one', date: DATE });
  await expect(create()).rejects.toMatchObject({ code: 'STORAGE_NO_SPACE' });
  await image[Symbol.asyncDispose]();
  await using again = await openOn(disk, '/image', 'write');
  await again.reclaimLeaks();
  await again.snapshots.create({ name: 'one', date: DATE });
  await sound(again);
});

test('L1 tables of snapshots, which a writer keeps in mind, are bounded together', async () => {
  const disk = await small();
  const craft = new Craft(disk, '/image');
  const [TABLE, HOLE, LONGEST] = [1 << 20, 2 << 20, 32 << 20];
  for (let number = 0; number < 5; number++) {
    const entry = new Uint8Array(64);
    snapshotHead.encode(
      {
        ...snapshotHead.decode(entry),
        l1TableOffset: HOLE + number * LONGEST,
        l1Size: LONGEST / 8,
        extraSize: 24,
      },
      entry,
    );
    craft.set(TABLE + 64 * number, entry);
  }
  craft.set(HOLE + 5 * LONGEST - 1, new Uint8Array(1));
  craft.patch({ nbSnapshots: 5, snapshotsOffset: TABLE });
  await expect(openOn(disk, '/image', 'write')).rejects.toMatchObject({
    code: 'IMAGE_LIMIT',
    details: { limit: 262_144, found: 327_680 },
  });
  craft.patch({ nbSnapshots: 4 });
  await using image = await openOn(disk, '/image', 'write');
  expect(image.writable).toBe(true);
});

test('one snapshot taken, applied twice, and deleted, leaves the image as sound as it was', async () => {
  const disk = await small();
  await using image = await openOn(disk, '/image', 'write');
  const { id } = await image.snapshots.create({ name: 'one', date: DATE });
  await image.write(guestOffset(512), new Uint8Array(512).fill(7), plain);
  for (const value of [1, 1]) {
    await image.snapshots.apply(id);
    expect((await readAll(image))[512]).toBe(value);
    await sound(image);
  }
  await image.snapshots.delete(id);
  expect(await image.snapshots.list()).toEqual([]);
  await sound(image);
  // what is the disk's alone again is written in place
  const { allocatedClusters, imageEndOffset } = await image.check();
  await image.write(guestOffset(0), new Uint8Array(8 * 512).fill(9), plain);
  await image.flush();
  expect(await image.check()).toMatchObject({ allocatedClusters, imageEndOffset, leaks: 0 });
});
