import { crashStates, type MemoryDisk, memoryBackend, record } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { qcow2, type RepairReport, type RepairScope } from '../src/index.ts';
import { snapshotHead } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { prepared, put } from './scenarios.ts';
import { attempt, bytesOn, dump, haveQemu, openOn, readAll, run, scratch } from './support.ts';

const KIB = 1024;
const SMALL = { clusterSize: 512, virtualSize: 32 * KIB };
const FINDING = 'snapshot table entry 0 is incomplete';

/** An image of version 3 with a snapshot that says nothing but its names, as version 2 allows it. */
function incomplete(extraSize = 0): Promise<MemoryDisk> {
  return prepared(
    SMALL,
    (image) => put(image, 0, 8 * KIB),
    (craft) => {
      craft.snapshot();
      const at = craft.header.snapshotsOffset;
      const entry = craft.bytes(at, 512);
      const head = snapshotHead.decode(entry);
      const names = entry.slice(snapshotHead.size + head.extraSize);
      snapshotHead.encode({ ...head, extraSize, stateSize: 77 }, entry);
      entry.fill(0, snapshotHead.size);
      // a field that is cut says nothing
      entry.fill(1, snapshotHead.size + (extraSize & ~7), snapshotHead.size + extraSize);
      entry.set(names.subarray(0, head.idLength + head.nameLength), snapshotHead.size + extraSize);
      craft.set(at, entry);
    },
  );
}

async function repair(disk: MemoryDisk, scope: RepairScope): Promise<RepairReport> {
  await using storage = await memoryBackend(disk).open(IMAGE, 'write');
  return await qcow2.repair(storage, { scope });
}

/** What QEMU's check ends with, and the corruptions that its repair mends. */
function byQemu(disk: MemoryDisk): { readonly status: number | null; readonly fixed: number } {
  using dir = scratch();
  const path = dir.path('image.qcow2');
  dump(disk, IMAGE, path);
  const { status } = attempt('qemu-img', 'check', '-q', path);
  const { stdout } = attempt('qemu-img', 'check', '-r', 'all', '--output=json', path);
  return { status, fixed: JSON.parse(stdout)['corruptions-fixed'] };
}

/** @throws Error unless QEMU finds nothing wrong, and lists so many snapshots */
function soundToQemu(disk: MemoryDisk, snapshots: number): void {
  using dir = scratch();
  const path = dir.path('image.qcow2');
  dump(disk, IMAGE, path);
  run('qemu-img', 'check', '-q', path);
  expect(JSON.parse(run('qemu-img', 'info', '--output=json', path)).snapshots).toHaveLength(
    snapshots,
  );
}

/** What the disk and its snapshot show. */
async function views(disk: MemoryDisk): Promise<readonly Uint8Array[]> {
  await using image = await openOn(disk, IMAGE, 'read');
  const [{ id = '' } = {}] = await image.snapshots.list();
  await using snapshot = await image.snapshots.open(id);
  return [await readAll(image), await readAll(snapshot)];
}

test.each([0, 4, 8, 12])(
  'a snapshot with %i bytes of extra data is an error in version 3, and repaired, as by QEMU',
  async (extraSize) => {
    const disk = await incomplete(extraSize);
    const before = await views(disk);
    const bytes = bytesOn(disk, IMAGE);
    using dir = scratch();
    const path = dir.path('image.qcow2');
    if (haveQemu) {
      dump(disk, IMAGE, path);
      const { status, stdout } = attempt('qemu-img', 'check', '--output=json', path);
      expect([status, JSON.parse(stdout).corruptions]).toEqual([2, 1]);
    }
    const found: string[] = [];
    {
      await using image = await openOn(disk, IMAGE, 'read');
      const { corruptions } = await image.check({
        onFinding: ({ message }) => found.push(message),
      });
      expect([corruptions, found]).toEqual([1, [FINDING]]);
    }
    expect(await repair(disk, 'leaks')).toMatchObject({ corruptionsFixed: 0 });
    expect(bytesOn(disk, IMAGE)).toEqual(bytes);
    const { left, corruptionsFixed } = await repair(disk, 'all');
    expect([left.corruptions, left.leaks, corruptionsFixed]).toEqual([0, 0, 1]);
    expect(await views(disk)).toEqual(before);
    {
      await using image = await openOn(disk, IMAGE, 'write');
      expect(await image.snapshots.list()).toMatchObject([
        { name: 'snap', stateBytes: extraSize < 8 ? 77 : 0, instructions: null },
      ]);
      // of the size that the disk had then
      await image.resize(byteLength(64 * KIB), { fill: null });
      await image.write(guestOffset(0), new Uint8Array(KIB), { fill: null });
    }
    expect((await views(disk))[1]).toEqual(before[1]);
    if (!haveQemu) return;
    dump(disk, IMAGE, path);
    run('qemu-img', 'check', '-q', path);
    run('qemu-img', 'snapshot', '-a', 'snap', path);
  },
);

test('version 2 has such snapshots, and nothing is wrong with them', async () => {
  const disk = await prepared(
    { ...SMALL, version: 2 },
    (image) => put(image, 0, 8 * KIB),
    (craft) => {
      craft.snapshot();
      const at = craft.header.snapshotsOffset;
      const entry = craft.bytes(at, 512);
      const head = snapshotHead.decode(entry);
      snapshotHead.encode({ ...head, extraSize: 0 }, entry);
      craft.set(at, entry);
    },
  );
  expect((await repair(disk, 'all')).found.corruptions).toBe(0);
});

test('a mended table goes with unknown autoclear bits taken (W8)', async () => {
  const disk = await incomplete();
  new Craft(disk, IMAGE).setWord(92, 0x80);
  await repair(disk, 'all');
  expect(new Craft(disk, IMAGE).word(92)).toBe(0);
});

test('every crash of the repair leaves the table as it was, or whole', async () => {
  const disk = await incomplete();
  const before = await views(disk);
  const recording = record(disk);
  {
    await using storage = await recording.backend.open(IMAGE, 'write');
    await qcow2.repair(storage, { scope: 'all' });
  }
  let judged = 0;
  for (const { name, disk: state } of crashStates(recording, { exhaustive: 8 })) {
    expect([name, await views(state)]).toEqual([name, before]);
    const found: string[] = [];
    await using image = await openOn(state, IMAGE, 'read');
    await image.check({
      onFinding: ({ severity, message }) => {
        if (severity === 'corruption') found.push(message);
      },
    });
    expect([name, found.filter((message) => message !== FINDING)]).toEqual([name, []]);
    expect((await repair(state, 'all')).left).toMatchObject({ corruptions: 0, leaks: 0 });
    judged++;
  }
  expect(judged).toBeGreaterThan(3);
});

/** Two snapshots, of which the first has that much extra data. */
function overlong(extraSize: number, version: 2 | 3 = 3): Promise<MemoryDisk> {
  return prepared(
    { ...SMALL, version },
    async (image) => {
      await put(image, 0, 8 * KIB);
      await image.snapshots.create({ name: 'one', date: DATE });
      await put(image, 2 * KIB, 4 * KIB);
      await image.snapshots.create({ name: 'two', date: DATE });
      await put(image, 3 * KIB, 4 * KIB);
    },
    (craft) => {
      // the old table is leaked
      const [first = NO_ENTRY, second = NO_ENTRY] = entriesAt(craft, 2);
      const table = Buffer.concat([widened(first, extraSize), second]);
      craft.patch({ snapshotsOffset: craft.append(table) });
    },
  );
}

const NO_ENTRY = new Uint8Array();
const DATE = '2026-01-01T00:00:00.000Z';

/** The bytes of the first entries of the snapshot table. */
function entriesAt(craft: Craft, count: number): readonly Uint8Array[] {
  let at = craft.header.snapshotsOffset;
  return Array.from({ length: count }, () => {
    const { extraSize, idLength, nameLength } = snapshotHead.decode(
      craft.bytes(at, snapshotHead.size),
    );
    const length = Math.ceil((snapshotHead.size + extraSize + idLength + nameLength) / 8) * 8;
    at += length;
    return craft.bytes(at - length, length);
  });
}

/** An entry with more extra data, full of 0xee. */
function widened(entry: Uint8Array, extraSize: number): Uint8Array {
  const head = snapshotHead.decode(entry);
  const names = snapshotHead.size + head.extraSize;
  const length = snapshotHead.size + extraSize + head.idLength + head.nameLength;
  const wide = new Uint8Array(Math.ceil(length / 8) * 8);
  wide.set(entry.subarray(0, names));
  wide.fill(0xee, names, snapshotHead.size + extraSize);
  wide.set(
    entry.subarray(names, names + head.idLength + head.nameLength),
    snapshotHead.size + extraSize,
  );
  snapshotHead.encode({ ...head, extraSize }, wide);
  return wide;
}

const LONGEST = 1024;

test.each([[LONGEST], [LONGEST + 1], [LONGEST + 8], [9000]] as const)(
  'a snapshot with %i bytes of extra data: above the limit it is refused, and cut by a repair, as by QEMU',
  async (extraSize) => {
    const disk = await overlong(extraSize);
    const wrong = extraSize > LONGEST;
    const bytes = bytesOn(disk, IMAGE);
    if (haveQemu)
      expect(byQemu(disk)).toMatchObject(wrong ? { status: 1, fixed: 1 } : { status: 3 });
    {
      await using image = await openOn(disk, IMAGE, 'read');
      expect(await readAll(image)).toHaveLength(SMALL.virtualSize);
      const check = image.check();
      if (wrong)
        await expect(check).rejects.toMatchObject({
          code: 'IMAGE_CORRUPT',
          message: /extra data.*check -r all/,
        });
      else expect(await check).toMatchObject({ corruptions: 0 });
    }
    if (wrong) {
      await expect(repair(disk, 'leaks')).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
      expect(bytesOn(disk, IMAGE)).toEqual(bytes);
    }
    expect(await repair(disk, 'all')).toMatchObject({
      found: { corruptions: wrong ? 1 : 0 },
      corruptionsFixed: wrong ? 1 : 0,
      left: { corruptions: 0, leaks: 0 },
    });
    {
      await using image = await openOn(disk, IMAGE, 'read');
      const names = (await image.snapshots.list()).map(({ name }) => name);
      expect(names).toEqual(['one', 'two']);
      for (const { id } of await image.snapshots.list()) {
        await using snapshot = await image.snapshots.open(id);
        expect((await readAll(snapshot)).subarray(0, 16)).not.toEqual(new Uint8Array(16));
      }
    }
    const [cut = NO_ENTRY] = entriesAt(new Craft(disk, IMAGE), 1);
    expect(snapshotHead.decode(cut).extraSize).toBe(LONGEST);
    if (haveQemu) soundToQemu(disk, 2);
  },
);

test('every crash of cutting extra data leaves the table as it was, or whole', async () => {
  await everyCrash(await overlong(3000), 2);
});

/** Bytes of an id and of a name, about as many as there can be, and how many snapshots with these make the longest table that anybody reads. */
const NAME = 65_000;
const FIT = Math.floor((64 << 20) / (2 * NAME + 64));
const BEYOND = 3;

/** A table of which some snapshots lie behind 64 MiB, with the only mapping that is not empty. */
function tooLong(): Promise<MemoryDisk> {
  return prepared(
    { clusterSize: 65_536, virtualSize: 256 * KIB },
    async (image) => {
      await put(image, 0, 100 * KIB);
      await image.snapshots.create({ name: 'one', date: DATE });
      await put(image, 0, 70 * KIB);
    },
    (craft) => {
      const [entry = NO_ENTRY] = entriesAt(craft, 1);
      const head = snapshotHead.decode(entry);
      const namesAt = snapshotHead.size + head.extraSize;
      const length = namesAt + 2 * NAME;
      const table = new Uint8Array((FIT + BEYOND) * length);
      for (let index = 0; index < FIT + BEYOND; index++) {
        const one = table.subarray(index * length, (index + 1) * length);
        one.set(entry.subarray(0, namesAt));
        one.fill(0x61 + (index % 26), namesAt);
        one.set(new TextEncoder().encode(String(index)), namesAt);
        const l1Size = index === FIT ? head.l1Size : 0;
        snapshotHead.encode({ ...head, l1Size, idLength: NAME, nameLength: NAME }, one);
      }
      craft.patch({ nbSnapshots: FIT + BEYOND, snapshotsOffset: craft.append(table) });
    },
  );
}

test('snapshots behind 64 MiB of the table are dropped by a repair, as by QEMU', async () => {
  const disk = await tooLong();
  const bytes = new Craft(disk, IMAGE).header;
  if (haveQemu) expect(byQemu(disk)).toEqual({ status: 1, fixed: BEYOND });
  {
    await using image = await openOn(disk, IMAGE, 'read');
    const refusal = { code: 'IMAGE_LIMIT', message: /64 MiB.*check -r all/ };
    await expect(image.check()).rejects.toMatchObject(refusal);
  }
  await expect(repair(disk, 'leaks')).rejects.toMatchObject({ code: 'IMAGE_LIMIT' });
  expect(new Craft(disk, IMAGE).header).toEqual(bytes);
  const { corruptionsFixed, found, left } = await repair(disk, 'all');
  expect([found.corruptions, corruptionsFixed]).toEqual([BEYOND, BEYOND]);
  expect(left).toMatchObject({ corruptions: 0, leaks: 0 });
  await using image = await openOn(disk, IMAGE, 'read');
  expect(await image.snapshots.list()).toHaveLength(FIT);
  if (haveQemu) soundToQemu(disk, FIT);
}, 120_000);

test('every crash of dropping snapshots leaves no more than leaks', async () => {
  const disk = await tooLong();
  const dropped = entriesAt(new Craft(disk, IMAGE), FIT + 1).at(-1) ?? NO_ENTRY;
  await everyCrash(disk, FIT, 4, async (state) => {
    // whoever still finds it in the table finds all that it refers to counted (W5)
    const craft = new Craft(state, IMAGE);
    craft.patch({ nbSnapshots: 1, snapshotsOffset: craft.append(dropped) });
    await using image = await openOn(state, IMAGE, 'read');
    expect((await image.check()).corruptions).toBe(0);
  });
}, 300_000);

/**
 * Each legal crash of a repair: the disk reads as before, nothing new is wrong, and the repair is completed, with so many snapshots. `asBefore`: looks at
 * copies of those in which the table is as it was.
 */
async function everyCrash(
  disk: MemoryDisk,
  snapshots: number,
  exhaustive = 8,
  asBefore: (state: MemoryDisk) => Promise<void> = async () => {},
): Promise<void> {
  const shown = async (state: MemoryDisk): Promise<Uint8Array> => {
    await using image = await openOn(state, IMAGE, 'read');
    return await readAll(image);
  };
  const before = await shown(disk);
  const recording = record(disk);
  {
    await using storage = await recording.backend.open(IMAGE, 'write');
    await qcow2.repair(storage, { scope: 'all' });
  }
  let [judged, whole] = [0, 0];
  for (const { name, disk: state } of crashStates(recording, { exhaustive })) {
    judged++;
    expect([name, Buffer.compare(await shown(state), before)]).toEqual([name, 0]);
    {
      await using image = await openOn(state, IMAGE, 'read');
      const corruptions = await image.check().then(
        (report) => report.corruptions,
        ({ message }: Error) => message,
      );
      if (corruptions === 0) whole++;
      else expect([name, corruptions]).toEqual([name, expect.stringMatching(/check -r all/)]);
      if (corruptions !== 0) await asBefore(state.copy());
    }
    expect((await repair(state, 'all')).left).toMatchObject({ corruptions: 0, leaks: 0 });
    await using image = await openOn(state, IMAGE, 'read');
    expect(await image.snapshots.list()).toHaveLength(snapshots);
  }
  expect(judged).toBeGreaterThan(3);
  expect(whole).toBeGreaterThan(0);
  expect(whole).toBeLessThan(judged);
}
