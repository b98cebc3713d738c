import { readFileSync, writeFileSync } from 'node:fs';
import { caseContext } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
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
} from './support.ts';

/**
 * Random changes of random images, against a flat model of the disk; at the end QEMU must find no error and no leak, and
 * read the same bytes. Replay one: DOWNFOLD_SEED=n vitest run --project qcow2 differential
 */
const only = process.env['DOWNFOLD_SEED'];
const count = process.env['DOWNFOLD_TIER'] === 'long' ? 2000 : 60;
const seeds =
  only === undefined ? Array.from({ length: count }, (_, index) => index + 1) : [Number(only)];

function geometry(seed: number): Qcow2CreateOptions & { clusterSize: number } {
  const { integer, random } = caseContext(seed);
  const version = random() < 0.25 ? 2 : 3;
  const extendedL2 = version === 3 && random() < 0.35;
  const clusterSize = 2 ** (extendedL2 ? 14 + integer(2) : 9 + integer(5));
  const virtualSize = 512 * (1 + integer((clusterSize * 80) / 512));
  return {
    version,
    extendedL2,
    clusterSize,
    virtualSize: byteLength(virtualSize),
    refcountBits: version === 2 ? 16 : 2 ** integer(7),
    backing: random() < 0.6 ? { name: 'below.raw', format: 'raw' } : null,
  };
}

describe.skipIf(!haveQemu)('random changes leave what QEMU reads and finds clean', () => {
  test.each(seeds)('seed %i', async (seed) => {
    const { integer, random, bytes } = caseContext(seed * 7919);
    const options = geometry(seed);
    const disk = new MemoryDisk();
    const backend = memoryBackend(disk);
    const other = await backend.create('/source', { secret: false });
    const noise = bytes(options.clusterSize * 8);
    await other.write(hostOffset(0), noise);
    const belowBytes =
      options.backing === null
        ? new Uint8Array()
        : bytes(512 * (1 + integer(Math.max(1, (options.virtualSize / 512) * 1.2))));
    const fill = options.backing === null ? null : belowOf(belowBytes);
    let image = await qcow2.create(await backend.create('/image', { secret: false }), options);
    let model = new Uint8Array(options.virtualSize);
    if (fill !== null) await fill(guestOffset(0), model);
    const hidden = new Uint8Array(options.virtualSize * 3); // what lies below each byte of the disk
    hidden.set(belowBytes.subarray(0, hidden.length));
    const unit = image.geometry.allocationGranularity;
    for (let step = 0; step < 40; step++) {
      const at = integer(model.length);
      const length =
        1 + integer(Math.min(model.length - at, options.clusterSize * (random() < 0.3 ? 8 : 2)));
      const action = random();
      if (action < 0.3) {
        const source = noise.subarray(0, length);
        await image.write(guestOffset(at), source, { fill });
        model.set(source, at);
      } else if (action < 0.45) {
        await image.copyFrom(other, hostOffset(0), guestOffset(at), byteLength(length), { fill });
        model.set(noise.subarray(0, length), at);
      } else if (action < 0.65) {
        await image.writeZeroes(range(at, length), { fill });
        model.fill(0, at, at + length);
      } else if (action < 0.8) {
        await image.deallocate(range(at, length));
        const from = Math.ceil(at / unit) * unit;
        const to =
          at + length === model.length ? model.length : Math.floor((at + length) / unit) * unit;
        const compare = await readAll(image, fill);
        // what is deallocated shows what lies below; nothing else may change
        if (to > from) model.set(hidden.subarray(from, to), from);
        expect(Buffer.compare(compare, model), `after deallocate ${at}+${length}`).toBe(0);
      } else if (action < 0.88) await image.flush();
      else if (action < 0.94 && model.length < hidden.length - 512) {
        const size = Math.min(
          hidden.length,
          model.length + 512 * (1 + integer((options.clusterSize * 10) / 512)),
        );
        await image.resize(byteLength(size), { fill });
        const larger = new Uint8Array(size);
        larger.set(model);
        model = larger;
      } else {
        await image.flush();
        await image[Symbol.asyncDispose]();
        image = await openOn(disk, '/image', 'write');
      }
    }
    await image.flush();
    expect(Buffer.compare(await readAll(image, fill), model), 'our own reading').toBe(0);
    const report = await image.check();
    await image[Symbol.asyncDispose]();
    using dir = scratch();
    dump(disk, '/image', dir.path('image.qcow2'));
    writeFileSync(dir.path('below.raw'), belowBytes);
    const check = qemuCheck(dir.path('image.qcow2'));
    expect([check['corruptions'] ?? 0, check['leaks'] ?? 0, check['check-errors']]).toEqual([
      0, 0, 0,
    ]);
    expect(report).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: check['allocated-clusters'] ?? 0,
      fragmentedClusters: check['fragmented-clusters'] ?? 0,
      totalClusters: check['total-clusters'],
      imageEndOffset: check['image-end-offset'],
    });
    run(
      'qemu-img',
      'convert',
      '-f',
      'qcow2',
      '-O',
      'raw',
      dir.path('image.qcow2'),
      dir.path('out.raw'),
    );
    const seen = readFileSync(dir.path('out.raw'));
    expect(Buffer.compare(seen, model), 'what QEMU reads').toBe(0);
  });
});
