import { readFileSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import { openBackend, type Storage } from '@downfold/storage';
import { faulty } from '@downfold/storage/faults';
import {
  crashStates,
  MemoryDisk,
  memoryBackend,
  memoryBackendDriver,
  record,
} from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { AUTOCLEAR_AT } from '../src/structures.ts';
import { Craft } from './craft.ts';
import {
  bytesOn,
  changeAt,
  dump,
  haveQemu,
  load,
  range,
  readAll,
  run,
  sameByQemu,
  scratch,
  seeds,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const plain = { fill: null };
const DATE = '2026-11-25T00:00:00Z';

function open(disk: MemoryDisk, mode: 'read' | 'write', asked: string[] = []): Promise<Qcow2> {
  const backend = memoryBackend(disk);
  const openDataFile = async (name: string): Promise<Storage> => {
    asked.push(name);
    return backend.open('/data', mode);
  };
  return backend
    .open('/image', mode)
    .then((storage) => qcow2.open(storage, { mode, openDataFile }));
}

async function created(
  raw: boolean,
  options: Omit<Qcow2CreateOptions, 'dataFile'>,
  name = 'image.data',
): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const backend = memoryBackend(disk);
  const storage = await backend.create('/data', { secret: false });
  const dataFile = { name, raw, storage };
  const image = await qcow2.create(await backend.create('/image', { secret: false }), {
    ...options,
    dataFile,
  });
  await image[Symbol.asyncDispose]();
  return disk;
}

/** The image, its data file beside it. */
function dumpBoth(disk: MemoryDisk, path: string, data: string): void {
  dump(disk, '/image', path);
  dump(disk, '/data', data);
}

async function change(image: Qcow2, model: Uint8Array, seed: number): Promise<void> {
  const { bytes, integer } = caseContext(seed);
  for (let turn = 0; turn < 12; turn++) {
    const at = integer(model.length - 70_000);
    const length = 1 + integer(70_000);
    await changeAt(image, model, turn, range(turn === 0 ? 5 : at, length), bytes);
    if (turn % 5 === 4) await image.flush();
  }
  // from another file, in pieces of clusters and over whole ones
  const from = await memoryBackend(new MemoryDisk()).create('/from', { secret: false });
  const copied = bytes(200 * KIB);
  await from.write(hostOffset(0), copied);
  await image.copyFrom(
    [
      { source: from, from: hostOffset(0), offset: guestOffset(700), length: byteLength(90 * KIB) },
      {
        source: from,
        from: hostOffset(100 * KIB),
        offset: guestOffset(300 * KIB),
        length: byteLength(100 * KIB),
      },
    ],
    plain,
  );
  model.set(copied.subarray(0, 90 * KIB), 700);
  model.set(copied.subarray(100 * KIB), 300 * KIB);
  // the last cluster, which the end of the disk cuts
  const tail = bytes(100);
  await image.write(guestOffset(model.length - 100), tail, plain);
  model.set(tail, model.length - 100);
  await image.flush();
}

describe.each([
  ['a data file', false],
  ['a raw data file', true],
])('%s', (_, raw) => {
  const shapes: readonly Omit<Qcow2CreateOptions, 'dataFile' | 'virtualSize'>[] = [
    {},
    { clusterSize: 4 * KIB, refcountBits: 1 },
    { extendedL2: true },
  ];
  test.each(shapes)('made by Downfold: $clusterSize $extendedL2', async (shape) => {
    const size = 900 * KIB + 512;
    using dir = scratch();
    // QEMU takes a relative name from where it runs
    const data = dir.path('image.data');
    const disk = await created(raw, { virtualSize: byteLength(size), ...shape }, data);
    const model = new Uint8Array(size);
    {
      await using image = await open(disk, 'write');
      await change(image, model, 3);
      expect(Buffer.compare(await readAll(image), model)).toBe(0);
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      expect((await image.describe()).specific).toMatchObject({
        'data-file': data,
        'data-file-raw': raw,
      });
    }
    expect(new Craft(disk, '/image').word(AUTOCLEAR_AT + 4)).toBe(raw ? 2 : 0);
    if (raw) expect(Buffer.compare(bytesOn(disk, '/data'), model)).toBe(0);
    if (!haveQemu) return;
    const path = dir.path('image.qcow2');
    dumpBoth(disk, path, data);
    soundByQemu(path);
    sameByQemu(path, model);
  });

  test.skipIf(!haveQemu).each(seeds(perTier({ quick: 1, ci: 4, long: 40 })))(
    'made and written by QEMU, seed %i',
    async (seed) => {
      using dir = scratch();
      const [path, data] = [dir.path('image.qcow2'), dir.path('image.data')];
      const option = `data_file=${data},data_file_raw=${raw ? 'on' : 'off'}`;
      const size = 700 * KIB;
      // QEMU takes the name of the data file as it is when it creates, and relative to the image later
      run(
        'sh',
        '-ec',
        `cd ${dir.path('.')} && qemu-img create -q -f qcow2 -o ${option} ${path} ${size}`,
      );
      run('qemu-io', '-f', 'qcow2', '-c', 'write -P 4 0 100k', '-c', 'write -z 50k 20k', path);
      const model = new Uint8Array(size).fill(4, 0, 100 * KIB).fill(0, 50 * KIB, 70 * KIB);
      const disk = new MemoryDisk();
      await load(disk, '/image', path);
      await load(disk, '/data', data);
      const asked: string[] = [];
      {
        await using image = await open(disk, 'write', asked);
        expect(Buffer.compare(await readAll(image), model)).toBe(0);
        await change(image, model, seed);
        await image.resize(byteLength(1200 * KIB), plain);
        await image.shrink(byteLength(1000 * KIB));
      }
      expect(asked).toEqual([data]);
      const grown = new Uint8Array(1000 * KIB);
      grown.set(model);
      dumpBoth(disk, path, data);
      soundByQemu(path);
      sameByQemu(path, grown);
      if (raw) expect(Buffer.compare(readFileSync(data), grown)).toBe(0);
    },
  );
});

describe('refused', () => {
  const size = byteLength(200 * KIB);

  test('an image with one, unless it is opened', async () => {
    const disk = await created(false, { virtualSize: size });
    for (const mode of ['read', 'write'] as const)
      await expect(
        qcow2.open(await memoryBackend(disk).open('/image', mode), { mode }),
      ).rejects.toMatchObject({
        code: 'IMAGE_UNSUPPORTED',
        details: { feature: 'external data file' },
      });
  });

  test('snapshots, stagings and compressed clusters', async () => {
    const disk = await created(false, { virtualSize: size });
    await using image = await open(disk, 'write');
    for (const work of [
      image.snapshots.create({ name: 's', date: DATE }),
      image.stage({ virtualSize: size, from: null, fill: null }),
      image.writeCompressed(guestOffset(0), new Uint8Array(64 * KIB)),
    ])
      await expect(work).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
  });

  test('version 2; a raw one over a backing file', async () => {
    const refused = { code: 'IMAGE_UNSUPPORTED' };
    const backing = { name: 'b', format: 'raw' };
    await expect(created(false, { virtualSize: size, version: 2 })).rejects.toMatchObject(refused);
    await expect(created(true, { virtualSize: size, backing })).rejects.toMatchObject(refused);
  });

  test('a compressed cluster in one that is damaged', async () => {
    const disk = await created(false, { virtualSize: size });
    {
      await using image = await open(disk, 'write');
      await image.write(guestOffset(0), new Uint8Array(KIB).fill(1), plain);
      await image.flush();
    }
    const craft = new Craft(disk, '/image');
    craft.setWord(craft.entryAt(0), 0x4000_0000);
    await using image = await open(disk, 'write');
    await expect(readAll(image)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
    expect((await image.check()).corruptions).toBe(1);
  });
});

test('no crash shows what was in the data file before, and a flush makes both files durable', async () => {
  const disk = await created(false, { virtualSize: byteLength(64 * KIB), clusterSize: 4 * KIB });
  const old = new Uint8Array(64 * KIB).fill(0xee);
  {
    await using storage = await memoryBackend(disk).open('/data', 'write');
    await storage.write(hostOffset(0), old);
  }
  const { backend, log, ...rest } = record(disk);
  const storage = await backend.open('/image', 'write');
  const openDataFile = (): Promise<Storage> => backend.open('/data', 'write');
  const image = await qcow2.open(storage, { mode: 'write', openDataFile });
  await image.write(guestOffset(8 * KIB), new Uint8Array(4 * KIB).fill(1), plain);
  await image.flush();
  const durable = log.length;
  await image.write(guestOffset(8 * KIB), new Uint8Array(4 * KIB).fill(2), plain);
  await image.write(guestOffset(0), new Uint8Array(4 * KIB).fill(3), plain);
  await image.flush();
  const end = log.length;
  let judged = 0;
  for (const state of crashStates({ backend, log, ...rest }, { exhaustive: 8 })) {
    const at = Number(/@(\d+)/.exec(state.name)?.[1]);
    await using found = await open(state.disk, 'read');
    const view = await readAll(found);
    const legal = (byte: number, ...values: readonly number[]): void =>
      expect(values, `${state.name}: ${view[byte]} at ${byte}`).toContain(view[byte]);
    legal(8 * KIB, ...(at >= end ? [2] : at >= durable ? [1, 2] : [0, 1]));
    legal(0, ...(at >= end ? [3] : [0, 3]));
    expect((await found.check()).corruptions).toBe(0);
    judged++;
  }
  expect(judged).toBeGreaterThan(10);
});

test('an entry that points elsewhere in a data file than the guest asks is corrupt, as QEMU finds it', async () => {
  const disk = await created(false, { virtualSize: byteLength(1 << 20), clusterSize: 4 * KIB });
  {
    await using image = await open(disk, 'write');
    await image.write(guestOffset(0), new Uint8Array(8 * KIB).fill(1), plain);
    await image.flush();
  }
  const craft = new Craft(disk, '/image');
  for (const zero of [0, 1]) {
    craft.setWord(craft.entryAt(1) + 4, (8 * KIB) | zero);
    await using image = await open(disk, 'read');
    const corrupt = expect.objectContaining({
      code: 'IMAGE_CORRUPT',
      details: { image: '/image', offset: craft.entryAt(1) },
    });
    await expect(readAll(image)).rejects.toEqual(corrupt);
    await using written = await open(disk, 'write');
    const write = written.write(guestOffset(4 * KIB), new Uint8Array(512), plain);
    await expect(write).rejects.toEqual(corrupt);
    if (!haveQemu || zero === 1) continue;
    using dir = scratch();
    dumpBoth(disk, dir.path('image'), dir.path('image.data'));
    const node = `driver=qcow2,file.filename=${dir.path('image')},data-file.driver=file,data-file.filename=${dir.path('image.data')}`;
    expect(() => run('qemu-io', '-r', '--image-opts', '-c', 'read 4k 4k', node)).toThrow();
  }
});

test('a raw data file is the disk whoever writes to it, also where the disk has grown, and when nothing was to be preallocated', async () => {
  const size = 256 * KIB;
  const disk = await created(true, { virtualSize: byteLength(size), preallocation: 'off' });
  // remains behind the disk
  const backend = memoryBackend(disk);
  await using file = await backend.open('/data', 'write');
  await file.write(hostOffset(size), new Uint8Array(512 * KIB).fill(9));
  {
    await using image = await open(disk, 'write');
    await image.resize(byteLength(2 * size + 1024), plain);
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  }
  expect(bytesOn(disk, '/data')).toEqual(new Uint8Array(2 * size + 1024));
  const put = [100, size - 100, size + 4096, 2 * size + 1000];
  for (const at of put) await file.write(hostOffset(at), new Uint8Array([7]));
  await using image = await open(disk, 'read');
  expect(Buffer.compare(await readAll(image), bytesOn(disk, '/data'))).toBe(0);
});

test('a flush that a full host put off makes the data file durable when it comes', async () => {
  const disk = await created(false, { virtualSize: byteLength(256 * KIB) });
  const driver = faulty(memoryBackendDriver(disk));
  const backend = openBackend(driver);
  const image = await qcow2.open(await backend.open('/image', 'write'), {
    mode: 'write',
    openDataFile: () => backend.open('/data', 'write'),
  });
  await image.write(guestOffset(0), new Uint8Array(512).fill(1), plain);
  driver.inject({ operation: 'write', name: 'L2 table', code: 'STORAGE_NO_SPACE' });
  await expect(image.flush()).rejects.toMatchObject({ code: 'STORAGE_NO_SPACE' });
  driver.inject({ operation: 'flush', file: '/data' });
  await expect(image.flush()).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
  await image[Symbol.asyncDispose]();
});
