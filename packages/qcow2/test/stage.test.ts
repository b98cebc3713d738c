import { readFileSync, writeFileSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import type { CowSource, Image, Staging, StagingToken } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { Craft } from './craft.ts';
import {
  belowOf,
  dump,
  haveQemu,
  openOn,
  qemuCheck,
  range,
  readAll,
  run,
  scratch,
  seeds,
} from './support.ts';

const IMAGE = '/image';
const UNDO = { name: 'before the job', date: '2026-11-25T01:02:03.456Z' };

type Options = Qcow2CreateOptions & { readonly clusterSize: number };

/** Any kind of image: versions, extended L2, cluster sizes, refcount widths, with or without a backing file. */
function anyKind(seed: number): Options {
  const { integer, random } = caseContext(seed);
  const version = random() < 0.25 ? 2 : 3;
  const extendedL2 = version === 3 && random() < 0.35;
  const clusterSize = 2 ** (extendedL2 ? 14 + integer(2) : 9 + integer(5));
  return {
    version,
    extendedL2,
    clusterSize,
    virtualSize: byteLength(512 * (1 + integer((clusterSize * 80) / 512))),
    refcountBits: version === 2 ? 16 : 2 ** integer(7),
    backing: random() < 0.6 ? { name: 'below.raw', format: 'raw' } : null,
  };
}

/** An image under test: a flat model of what it shows, and of what the staging on it shows. */
class Bench {
  readonly disk = new MemoryDisk();
  readonly below: Uint8Array;
  readonly fill: CowSource | null;
  readonly noise: Uint8Array;
  image!: Image;
  /** What the image shows. */
  shown: Uint8Array = new Uint8Array();
  /** What the staging shows. */
  next: Uint8Array = new Uint8Array();
  /** What it showed at its last flush, and all that was written to it since. */
  versions: Uint8Array[] = [];

  constructor(options: Options, seed: number) {
    const { bytes, integer } = caseContext(seed);
    const { virtualSize, backing } = options;
    this.below =
      backing == null
        ? new Uint8Array()
        : bytes(512 * (1 + integer(1 + (virtualSize / 512) * 1.5)));
    this.fill = backing == null ? null : belowOf(this.below);
    this.noise = bytes(options.clusterSize * 8);
  }

  static async make(options: Options, seed: number): Promise<Bench> {
    const bench = new Bench(options, seed);
    const backend = memoryBackend(bench.disk);
    await using source = await backend.create('/source', { secret: false });
    await source.write(hostOffset(0), bench.noise);
    bench.image = await qcow2.create(await backend.create(IMAGE, { secret: false }), options);
    bench.shown = await readAll(bench.image, bench.fill);
    return bench;
  }

  /** A random change of the image, or of the staging. */
  async change(target: Image | Staging, model: Uint8Array, seed: number): Promise<void> {
    const { integer, random } = caseContext(seed);
    const { fill, noise } = this;
    const at = integer(model.length);
    const length =
      1 + integer(Math.min(model.length - at, (noise.length / 8) * (random() < 0.3 ? 8 : 2)));
    const from = integer(noise.length - length + 1);
    const action = random();
    if (action < 0.4)
      await target.write(guestOffset(at), noise.subarray(from, from + length), { fill });
    else if (action < 0.65) {
      await using source = await memoryBackend(this.disk).open('/source', 'read');
      await target.copyFrom(
        [{ source, from: hostOffset(from), offset: guestOffset(at), length: byteLength(length) }],
        {
          fill,
        },
      );
    } else await target.writeZeroes(range(at, length), { fill });
    if (action < 0.65) model.set(noise.subarray(from, from + length), at);
    else model.fill(0, at, at + length);
  }

  /** Opens the image anew: the process before is gone. */
  async reopen(): Promise<void> {
    await this.image[Symbol.asyncDispose]();
    this.image = await openOn(this.disk, IMAGE, 'write');
  }

  async assertShown(what: string): Promise<void> {
    expect(Buffer.compare(await readAll(this.image, this.fill), this.shown), what).toBe(0);
  }

  async read(staging: Staging): Promise<Uint8Array> {
    const seen = new Uint8Array(this.next.length);
    await staging.read(guestOffset(0), seen, this.fill);
    return seen;
  }

  /** QEMU finds no error and no leak, and reads what the image shall show; `snapshots`: what each shall show. */
  judge(snapshots: ReadonlyMap<string, Uint8Array>): void {
    if (!haveQemu) return;
    using dir = scratch();
    const path = dir.path('image.qcow2');
    dump(this.disk, IMAGE, path);
    writeFileSync(dir.path('below.raw'), this.below);
    const { corruptions = 0, leaks = 0, 'check-errors': errors } = qemuCheck(path);
    expect({ corruptions, leaks, errors }).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
    const convert = (...of: readonly string[]): Uint8Array => {
      run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', ...of, path, dir.path('out.raw'));
      return readFileSync(dir.path('out.raw'));
    };
    expect(Buffer.compare(convert(), this.shown), 'what QEMU reads').toBe(0);
    for (const [name, content] of snapshots) {
      // QEMU shows a snapshot with the image's present size
      const seen = convert('-l', `snapshot.name=${name}`).subarray(0, content.length);
      expect(Buffer.compare(seen, content), `snapshot ${name}`).toBe(0);
    }
  }
}

/** Makes of mapped clusters what QEMU makes and Downfold does not: a snapshot, compressed and preallocated ones. */
function craftSome(bench: Bench, options: Options, seed: number): ReadonlyMap<string, Uint8Array> {
  const { random, integer } = caseContext(seed);
  const craft = new Craft(bench.disk, IMAGE);
  const mapped = mappedClusters(craft);
  const some = mapped.filter(() => random() < 0.3).slice(0, 8);
  if (some.length > 0 && random() < 0.5 && (options.refcountBits ?? 16) >= 4) {
    craft.compress(some);
    if (options.extendedL2)
      for (const cluster of some) craft.set(craft.entryAt(cluster) + 8, new Uint8Array(8));
  } else if (some.length > 0 && options.version === 3 && !options.extendedL2 && random() < 0.5) {
    craft.preallocateZero(some);
    for (const cluster of some)
      bench.shown.fill(0, cluster * options.clusterSize, (cluster + 1) * options.clusterSize);
  }
  if ((options.refcountBits ?? 16) < 8 || integer(3) > 0) return new Map();
  craft.snapshot('crafted');
  return new Map([['crafted', bench.shown.slice()]]);
}

/** Guest clusters that lie in a host cluster of their own. */
function mappedClusters(craft: Craft): number[] {
  const { clusterSize, l2Entries } = craft.geometry;
  const { size, l1TableOffset } = craft.header;
  const mapped: number[] = [];
  for (let cluster = 0; cluster < Math.floor(size / clusterSize); cluster++) {
    const l1At = l1TableOffset + 8 * Math.floor(cluster / l2Entries);
    if (craft.word(l1At) === 0 && craft.word(l1At + 4) === 0) continue;
    if (craft.hostOf(cluster) === 0) continue;
    // of extended L2 entries only those that are all data
    if (craft.geometry.extendedL2 && craft.word(craft.entryAt(cluster) + 12) !== 0xffff_ffff)
      continue;
    mapped.push(cluster);
  }
  return mapped;
}

describe('random stagings of random images', () => {
  test.each(seeds(perTier({ quick: 25, ci: 400, long: 4000 })))('seed %i', async (seed) => {
    const { integer, random } = caseContext(seed * 7919);
    const options = anyKind(seed);
    const bench = await Bench.make(options, seed);
    for (let step = 0; step < 25; step++)
      await bench.change(bench.image, bench.shown, integer(1e9));
    await bench.image.flush();
    await bench.image[Symbol.asyncDispose]();
    const snapshots = new Map(craftSome(bench, options, integer(1e9)));
    bench.image = await openOn(bench.disk, IMAGE, 'write');
    await bench.assertShown('after crafting');
    bench.judge(snapshots);

    for (let round = 0; round < 2; round++) {
      const { image } = bench;
      const mayGrow = (options.version === 3 || snapshots.size === 0) && random() < 0.4;
      const size =
        bench.shown.length + (mayGrow ? 512 * integer((options.clusterSize * 12) / 512) : 0);
      bench.next = new Uint8Array(size);
      bench.next.set(bench.shown);
      let staging = await image.stage({
        virtualSize: byteLength(size),
        from: null,
        fill: bench.fill,
      });
      bench.versions = [bench.next.slice()];
      for (let step = 0; step < 20; step++) {
        const action = random();
        if (action < 0.75) {
          await bench.change(staging, bench.next, integer(1e9));
          bench.versions.push(bench.next.slice());
        } else if (action < 0.85) {
          await staging.flush();
          bench.versions = [bench.next.slice()];
        } else if (action < 0.95) {
          staging = await killAndGoOn(bench, staging.token);
        } else await bench.assertShown('while staged');
        if (random() < 0.1)
          expect(Buffer.compare(await bench.read(staging), bench.next), 'staged').toBe(0);
      }
      const grown = size !== bench.shown.length;
      const keepUndo =
        random() < 0.4 &&
        options.refcountBits !== 1 &&
        !(options.version === 2 && grown) &&
        !(options.refcountBits === 2 && snapshots.size > 1)
          ? { ...UNDO, name: `undo ${round}` }
          : null;
      if (random() < 0.25) await staging.discard();
      else {
        await staging.publish({ keepUndo });
        if (keepUndo !== null) snapshots.set(keepUndo.name, bench.shown);
        bench.shown = bench.next;
      }
      await bench.assertShown('afterwards');
      expect(await bench.image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      bench.judge(snapshots);
      // the image goes on working
      for (let step = 0; step < 5; step++)
        await bench.change(bench.image, bench.shown, integer(1e9));
      await bench.image.flush();
      await bench.assertShown('changed afterwards');
      if (random() < 0.5) await bench.reopen();
    }
    await bench.assertShown('at the end');
    expect(await bench.image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    bench.judge(snapshots);
    await bench.image[Symbol.asyncDispose]();
  });
});

/** The process is killed, with all it wrote in the file; another goes on with the staging. */
async function killAndGoOn(bench: Bench, token: StagingToken): Promise<Staging> {
  await bench.reopen();
  await bench.assertShown('after the kill');
  await bench.image.reclaimLeaks({ keep: token });
  const staging = await bench.image.stage({
    virtualSize: byteLength(bench.next.length),
    from: token,
    fill: bench.fill,
  });
  expect(staging.published).toBe(false);
  expect(await bench.image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  const seen = await bench.read(staging);
  for (let at = 0; at < seen.length; at++)
    if (!bench.versions.some((version) => version[at] === seen[at]))
      expect.unreachable(
        `byte ${at} of the staging is ${seen[at]}, which it never was since the last flush`,
      );
  bench.next = seen;
  bench.versions = [seen.slice()];
  return staging;
}
