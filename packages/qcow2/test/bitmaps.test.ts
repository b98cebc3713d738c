import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { dirtyRanges, type Qcow2, qcow2 } from '../src/index.ts';
import { AUTOCLEAR_AT, bitmapsExtension, EXTENSION } from '../src/structures.ts';
import { Craft } from './craft.ts';
import {
  bytesOn,
  dump,
  haveQemu,
  load,
  openOn,
  range,
  run,
  scratch,
  seeds,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const plain = { fill: null };

/** Dirty ranges of a bitmap, [from, to), as one line each. */
async function dirty(image: Qcow2, name: string): Promise<readonly string[]> {
  return [...dirtyRanges(await image.bitmaps.content(name))].map(
    ({ offset, length }) => `${offset} ${length}`,
  );
}

/** The same by `nbdinfo`, from an export by `qemu-nbd -B`. */
async function dirtyByQemu(path: string, name: string, socket: string): Promise<readonly string[]> {
  const server: ChildProcess = spawn(
    'qemu-nbd',
    ['-r', '-f', 'qcow2', '-B', name, '-k', socket, '--shared=1', '-t', path],
    { stdio: 'ignore' },
  );
  const ended = new Promise((done) => server.once('exit', done));
  try {
    while (!existsSync(socket) && server.exitCode === null)
      await new Promise((done) => setTimeout(done, 10));
    const map = run(
      'nbdinfo',
      '--json',
      `--map=qemu:dirty-bitmap:${name}`,
      `nbd+unix:///?socket=${socket}`,
    );
    return (JSON.parse(map) as { offset: number; length: number; type: number }[])
      .filter(({ type }) => type === 1)
      .map(({ offset, length }) => `${offset} ${length}`);
  } finally {
    server.kill();
    await ended;
  }
}

interface Info {
  readonly flags: readonly string[];
  readonly name: string;
  readonly granularity: number;
}

function bitmapsByQemu(path: string): readonly Info[] {
  const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as {
    'format-specific': { data: { bitmaps?: readonly Info[] } };
  };
  return info['format-specific'].data.bitmaps ?? [];
}

/** Options of `qemu-img create`, and a size that their tables find awkward. */
const shapes = [
  ['cluster_size=64k', 1_000_448],
  ['cluster_size=512', 5_000_192],
  ['extended_l2=on', 3 * 1024 * KIB],
  ['cluster_size=2M', 9 * 1024 * KIB],
] as const;

describe.skipIf(!haveQemu)('bitmaps by QEMU and by Downfold in turns', () => {
  const histories = seeds(perTier({ quick: 2, ci: 8, long: 80 })).map(
    (seed) => [seed, ...(shapes[(seed - 1) % shapes.length] as (typeof shapes)[number])] as const,
  );
  test.each(histories)('seed %i, %s, %i bytes', async (seed, option, size) => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', option, path, String(size));
    run('qemu-img', 'bitmap', '--add', '-g', '512', path, 'fine');
    run('qemu-img', 'bitmap', '--add', path, 'usual');
    run('qemu-img', 'bitmap', '--add', '--disable', path, 'off');
    run('qemu-io', '-f', 'qcow2', '-c', 'write 100k 70k', '-c', 'discard 512k 64k', path);
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    const { bytes, integer } = caseContext(seed);
    let socket = 0;
    for (let round = 0; round < 2; round++) {
      const expected = new Map<string, readonly string[]>();
      {
        await using image = await openOn(disk, '/image', 'write');
        for (let turn = 0; turn < 5; turn++) {
          const at = integer(size - 9000);
          const length = 1 + integer(9000);
          if (turn === 1) await image.writeZeroes(range(at, length), plain);
          else if (turn === 3) await image.deallocate(range(at, length));
          else await image.write(guestOffset(at), bytes(length), plain);
        }
        await image.flush();
        await image.bitmaps.add({ name: `ours ${round}`, granularity: 4096 });
        await image.write(guestOffset(integer(size - 600)), bytes(600), plain);
        await image.bitmaps.merge('off', await image.bitmaps.content('fine'));
        if (round === 1) {
          await image.bitmaps.clear('usual');
          await image.bitmaps.remove('ours 0');
          await image.bitmaps.disable('fine');
          await image.bitmaps.enable('off');
        }
        await image.write(guestOffset(0), bytes(10), plain);
        for (const { name } of await image.bitmaps.list())
          expected.set(name, await dirty(image, name));
        if (round === 0) expect(expected.get('fine')).not.toEqual(expected.get('usual'));
      }
      dump(disk, '/image', path);
      soundByQemu(path);
      expect(bitmapsByQemu(path).map(({ name }) => name)).toEqual([...expected.keys()]);
      for (const { name, flags } of bitmapsByQemu(path)) {
        const enabled = name === (round === 1 ? 'fine' : 'off') ? [] : ['auto'];
        expect(flags, name).toEqual(enabled);
        expect(await dirtyByQemu(path, name, dir.path(`${socket++}`)), name).toEqual(
          expected.get(name),
        );
      }
    }
    // what QEMU records on top of it is read back, merged by it too
    run('qemu-io', '-f', 'qcow2', '-c', 'write 300k 5k', path);
    run('qemu-img', 'bitmap', '--merge', 'off', path, 'usual');
    const theirs = new MemoryDisk();
    await load(theirs, '/image', path);
    await using image = await openOn(theirs, '/image', 'read');
    for (const { name } of await image.bitmaps.list())
      expect(await dirty(image, name), name).toEqual(
        await dirtyByQemu(path, name, dir.path(`${socket++}`)),
      );
  });

  test('a bitmap is added to an image without any, and the last one removed', async () => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '1M');
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    for (const round of [0, 1]) {
      {
        await using image = await openOn(disk, '/image', 'write');
        await image.bitmaps.add({ name: 'one', enabled: false });
        if (round === 1) await image.setMark({ state: 'superseded', job: 'j', date: 'd' });
      }
      dump(disk, '/image', path);
      soundByQemu(path);
      expect(bitmapsByQemu(path)).toEqual([{ flags: [], name: 'one', granularity: 65_536 }]);
      {
        await using image = await openOn(disk, '/image', 'write');
        await image.bitmaps.remove('one');
        expect(await image.bitmaps.list()).toEqual([]);
      }
      dump(disk, '/image', path);
      soundByQemu(path);
      expect(bitmapsByQemu(path)).toEqual([]);
    }
  });

  test('a grown disk has longer bitmaps, new area is clean, as by QEMU', async () => {
    using dir = scratch();
    const [path, other] = [dir.path('image.qcow2'), dir.path('other.qcow2')];
    for (const file of [path, other]) {
      run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', file, '1000k');
      run('qemu-img', 'bitmap', '--add', '-g', '512', file, 'on');
      run('qemu-img', 'bitmap', '--add', '--disable', file, 'off');
      run('qemu-io', '-f', 'qcow2', '-c', 'write 990k 10k', file);
    }
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.resize(byteLength(9000 * KIB), plain);
    }
    dump(disk, '/image', path);
    soundByQemu(path);
    run('qemu-img', 'resize', '-q', other, '9000k');
    for (const name of ['on', 'off'])
      expect(await dirtyByQemu(path, name, dir.path(`a-${name}`))).toEqual(
        await dirtyByQemu(other, name, dir.path(`b-${name}`)),
      );
  });
});

/** An image of 64 clusters of 512 bytes with a bitmap. */
async function made(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  const options = { virtualSize: byteLength(64 * 512), clusterSize: 512 };
  await using image = await qcow2.create(storage, options);
  await image.bitmaps.add({ name: 'one', granularity: 1024 });
  return disk;
}

test('a directory without the padding of its last entry is refused, as by QEMU', async () => {
  const disk = await made();
  const craft = new Craft(disk, '/image');
  const head = Array.from({ length: 512 / 8 }, (_, index) => 8 * index).find(
    (at) => craft.word(at) === EXTENSION.bitmaps,
  ) as number;
  const sizeAt = head + 8 + bitmapsExtension.fields.directorySize.at + 4;
  const list = async (): Promise<unknown> => {
    await using image = await openOn(disk, '/image', 'read');
    return await image.bitmaps.list();
  };
  await expect(list()).resolves.toHaveLength(1);
  craft.setWord(sizeAt, craft.word(sizeAt) - 1);
  await expect(list()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });
});

test('opened for writing and closed unchanged, or with its header changed alone, bitmaps stay as they were', async () => {
  const disk = await made();
  const before = bytesOn(disk, '/image');
  {
    await using image = await openOn(disk, '/image', 'write');
    expect(await dirty(image, 'one')).toEqual([]);
    await image.flush();
  }
  expect(bytesOn(disk, '/image')).toEqual(before);
});

test('a writer that does not come to save them leaves them in use: refused, but for their removal', async () => {
  const disk = await made();
  const lost = await openOn(disk, '/image', 'write');
  await lost.write(guestOffset(0), new Uint8Array(100), plain);
  {
    await using image = await openOn(disk, '/image', 'read');
    expect(await image.bitmaps.list()).toMatchObject([{ name: 'one', inconsistent: true }]);
    await expect(image.bitmaps.content('one')).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
  }
  await using image = await openOn(disk, '/image', 'write');
  for (const work of [
    image.bitmaps.clear('one'),
    image.bitmaps.enable('one'),
    image.bitmaps.disable('one'),
    image.bitmaps.merge('one', {
      granularity: 1024,
      virtualSize: 64 * 512,
      bits: new Uint8Array(4),
    }),
    image.bitmaps.add({ name: 'one' }),
  ])
    await expect(work).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
  // it stays inconsistent beside others, and through writes
  await image.bitmaps.add({ name: 'two', granularity: 512 });
  await image.write(guestOffset(5 * 512), new Uint8Array(1), plain);
  await image.bitmaps.disable('two');
  expect(await image.bitmaps.list()).toMatchObject([{ inconsistent: true }, { enabled: false }]);
  expect(await dirty(image, 'two')).toEqual(['2560 512']);
  await image.bitmaps.remove('one');
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
});

test('saved before the image is closed, they are as after it, until the next change; closing then writes nothing', async () => {
  const disk = await made();
  const image = await openOn(disk, '/image', 'write');
  await image.bitmaps.save();
  await image.write(guestOffset(0), new Uint8Array(100), plain);
  await image.bitmaps.save();
  const isInconsistent = async (): Promise<boolean | undefined> => {
    await using reader = await openOn(disk, '/image', 'read');
    return (await reader.bitmaps.list())[0]?.inconsistent;
  };
  expect(await isInconsistent()).toBe(false);
  await image.write(guestOffset(5 * 512), new Uint8Array(1), plain);
  expect(await isInconsistent()).toBe(true);
  await image.flush();
  await image.bitmaps.save();
  const before = bytesOn(disk, '/image');
  await using reader = await openOn(disk, '/image', 'read');
  await image[Symbol.asyncDispose]();
  expect(bytesOn(disk, '/image')).toEqual(before);
  expect(await dirty(reader, 'one')).toEqual(['0 1024', '2048 1024']);
  expect(await reader.check()).toMatchObject({ corruptions: 0, leaks: 0 });
});

test('without the autoclear bit they mean nothing, and a new one takes their place', async () => {
  const disk = await made();
  new Craft(disk, '/image').setWord(AUTOCLEAR_AT + 4, 0);
  await using image = await openOn(disk, '/image', 'write');
  expect(await image.bitmaps.list()).toEqual([]);
  await image.bitmaps.add({ name: 'other' });
  await image.reclaimLeaks();
  expect(await image.bitmaps.list()).toMatchObject([{ name: 'other', inconsistent: false }]);
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
});

test('refused: version 2, granularities and names that are none, unknown names, disks of another size', async () => {
  const disk = await made();
  await using image = await openOn(disk, '/image', 'write');
  const before = bytesOn(disk, '/image');
  for (const bitmap of [
    { name: '' },
    { name: 'x'.repeat(1024) },
    { name: 'x', granularity: 256 },
    { name: 'x', granularity: 3000 },
    { name: 'x', granularity: 2 ** 32 },
  ])
    await expect(image.bitmaps.add(bitmap)).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
  await expect(image.bitmaps.remove('x')).rejects.toMatchObject({ code: 'IMAGE_RANGE' });
  const content = { granularity: 1024, virtualSize: 512, bits: new Uint8Array(1) };
  await expect(image.bitmaps.merge('one', content)).rejects.toMatchObject({
    code: 'IMAGE_UNSUPPORTED',
  });
  expect(bytesOn(disk, '/image')).toEqual(before);
  const storage = await memoryBackend(disk).create('/old', { secret: false });
  await using old = await qcow2.create(storage, { virtualSize: byteLength(512), version: 2 });
  await expect(old.bitmaps.add({ name: 'x' })).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
});

test('what a staging writes is recorded, also beyond the end that the disk has so far', async () => {
  const disk = await made();
  {
    await using image = await openOn(disk, '/image', 'write');
    const virtualSize = byteLength(300 * 512);
    const staging = await image.stage({ virtualSize, from: null, fill: null });
    await staging.write(guestOffset(0), new Uint8Array(512).fill(1), plain);
    await staging.write(guestOffset(290 * 512), new Uint8Array(512).fill(1), plain);
    await staging.publish({ keepUndo: null });
  }
  await using image = await openOn(disk, '/image', 'read');
  expect(await dirty(image, 'one')).toEqual(['0 1024', '148480 1024']);
});

describe('a staging that ends before it is published', () => {
  const write = (at: number) =>
    [guestOffset(at * 512), new Uint8Array(512).fill(1), plain] as const;
  /** Stages a write, and dies. Resolves with the disk it leaves, and the token. */
  async function killed(disk: MemoryDisk) {
    const image = await openOn(disk, '/image', 'write');
    const { virtualSize } = image.geometry;
    const staging = await image.stage({ virtualSize, from: null, fill: null });
    await staging.write(...write(8));
    await staging.flush();
    return { left: disk.copy(), from: staging.token, virtualSize };
  }

  test('leaves bitmaps true: given up, they say what they said', async () => {
    const disk = await made();
    const before = await dirtyOn(disk);
    const { left, from, virtualSize } = await killed(disk);
    expect(await dirtyOn(left)).toEqual(before);
    {
      await using image = await openOn(left, '/image', 'write');
      await (await image.stage({ virtualSize, from, fill: null })).discard();
    }
    expect(await dirtyOn(left)).toEqual(before);
  });

  test('is recorded by whoever publishes it, all of it', async () => {
    const { left, from, virtualSize } = await killed(await made());
    {
      await using image = await openOn(left, '/image', 'write');
      const staging = await image.stage({ virtualSize, from, fill: null });
      await staging.write(...write(20));
      await staging.publish({ keepUndo: null });
    }
    expect(await dirtyOn(left)).toEqual(['4096 1024', '10240 1024']);
  });

  async function dirtyOn(disk: MemoryDisk): Promise<readonly string[]> {
    await using image = await openOn(disk, '/image', 'read');
    return await dirty(image, 'one');
  }
});
