import { caseContext, perTier } from '@downfold/compliance';
import type { Image } from '@downfold/image';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { noise, type RandomImage, randomImage, snapshotOf, viewOf } from './random-image.ts';
import {
  belowOf,
  dump,
  haveQemu,
  openOn,
  qemuCheck,
  range,
  readAll,
  scratch,
  seeds,
} from './support.ts';

/**
 * Random changes of random images, Downfold's own and QEMU's, against a flat model of the disk; at the end QEMU must find no error
 * and no leak, and read the same bytes, in the disk and in every snapshot.
 * Replay one: DOWNFOLD_SEED=n vitest run --project qcow2 differential
 */
const STEPS = 40;

/** The model: what the disk shows, and what shows where it is deallocated. */
interface Model {
  view: Uint8Array;
  readonly below: Uint8Array;
}

/** Makes `STEPS` random changes, and the same in the model. Resolves with the image, still open. */
async function change(
  disk: MemoryDisk,
  made: RandomImage,
  model: Model,
  seed: number,
): Promise<Image> {
  const { integer, random } = caseContext(seed * 7919);
  const { clusterSize, version } = made.options;
  const fill = made.below === null ? null : belowOf(made.below);
  const content = noise(seed + 1, Math.min(clusterSize * 8, 4 << 20));
  const other = await memoryBackend(disk).create('/source', { secret: false });
  await other.write(hostOffset(0), content);
  let image = await openOn(disk, '/image', 'write');
  const unit = image.geometry.allocationGranularity;
  const growable = version === 3 || made.snapshots.size === 0;
  for (let step = 0; step < STEPS; step++) {
    const { view } = model;
    const at = integer(view.length);
    const most = Math.min(view.length - at, content.length, clusterSize * (random() < 0.3 ? 8 : 2));
    const length = 1 + integer(most);
    const action = random();
    if (action < 0.3) {
      await image.write(guestOffset(at), content.subarray(0, length), { fill });
      view.set(content.subarray(0, length), at);
    } else if (action < 0.45) {
      await image.copyFrom(
        [
          {
            source: other,
            from: hostOffset(0),
            offset: guestOffset(at),
            length: byteLength(length),
          },
        ],
        { fill },
      );
      view.set(content.subarray(0, length), at);
    } else if (action < 0.65) {
      await image.writeZeroes(range(at, length), { fill });
      view.fill(0, at, at + length);
    } else if (action < 0.8) {
      await image.deallocate(range(at, length));
      const from = Math.ceil(at / unit) * unit;
      const to =
        at + length === view.length ? view.length : Math.floor((at + length) / unit) * unit;
      if (to > from) view.set(model.below.subarray(from, to), from);
    } else if (action < 0.88) await image.flush();
    else if (action < 0.94 && growable && view.length < model.below.length) {
      const by = 512 * (1 + integer((clusterSize * 10) / 512));
      model.view = new Uint8Array(Math.min(model.below.length, view.length + by));
      model.view.set(view);
      await image.resize(byteLength(model.view.length), { fill });
    } else {
      await image.flush();
      await image[Symbol.asyncDispose]();
      image = await openOn(disk, '/image', 'write');
    }
    if (step % 10 === 9)
      expect(Buffer.compare(await readAll(image, fill), model.view), `after step ${step}`).toBe(0);
  }
  await image.flush();
  return image;
}

describe.skipIf(!haveQemu)('random changes leave what QEMU reads and finds clean', () => {
  test.each(seeds(perTier({ quick: 24, ci: 400, long: 5000 })))('seed %i', async (seed) => {
    using dir = scratch();
    const made = await randomImage(seed, dir.path);
    const { disk, options } = made;
    const fill = made.below === null ? null : belowOf(made.below);
    const below = new Uint8Array(options.virtualSize + 20 * options.clusterSize);
    below.set((made.below ?? below).subarray(0, below.length));
    {
      await using image = await openOn(disk, '/image', 'read');
      expect(Buffer.compare(await readAll(image, fill), made.view), 'as it was made').toBe(0);
    }
    const model: Model = { view: made.view.slice(), below };
    const image = await change(disk, made, model, seed);
    const report = await image.check();
    await image[Symbol.asyncDispose]();
    dump(disk, '/image', dir.path('image.qcow2'));
    const check = qemuCheck(dir.path('image.qcow2'));
    const found = [check['corruptions'] ?? 0, check['leaks'] ?? 0, check['check-errors']];
    expect(found, 'what QEMU finds').toEqual([0, 0, 0]);
    expect(report).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: check['allocated-clusters'] ?? 0,
      fragmentedClusters: check['fragmented-clusters'] ?? 0,
      compressedClusters: check['compressed-clusters'] ?? 0,
      totalClusters: check['total-clusters'],
      imageEndOffset: check['image-end-offset'],
    });
    expect(Buffer.compare(viewOf(dir.path), model.view), 'what QEMU reads').toBe(0);
    for (const [name, view] of made.snapshots) {
      // a disk that has grown since makes QEMU show more
      const seen = snapshotOf(name, dir.path).subarray(0, view.length);
      expect(Buffer.compare(seen, view), `snapshot ${name}`).toBe(0);
    }
  });
});
