import { spawnSync } from 'node:child_process';
import { caseContext, perTier } from '@downfold/compliance';
import { MemoryDisk } from '@downfold/storage-memory';
import { guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { INCOMPATIBLE_AT } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { factsOf, GOLDEN_PATH, goldenDisk, goldenNamed } from './golden/library.ts';
import { sha256 } from './golden/qemu-facts.ts';
import { bytesOn, dump, haveQemu, load, openOn, readAll, run, scratch, seeds } from './support.ts';

const plain = { fill: null };

test('a golden image that QEMU left dirty is repaired when it is opened for writing, and not for reading', async () => {
  const golden = goldenNamed('dirty.qcow2');
  const disk = await goldenDisk(golden);
  const before = bytesOn(disk, GOLDEN_PATH);
  {
    await using image = await openOn(disk, GOLDEN_PATH, 'read');
    expect((await image.check()).corruptions).toBeGreaterThan(0);
    expect((await image.describe()).dirty).toBe(true);
  }
  expect(bytesOn(disk, GOLDEN_PATH)).toEqual(before);
  await using image = await openOn(disk, GOLDEN_PATH, 'write');
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  expect((await image.describe()).dirty).toBe(false);
  expect(sha256(await readAll(image))).toBe(factsOf(golden).view);
});

describe.skipIf(!haveQemu)('images that QEMU left dirty, repaired and written', () => {
  test.each(seeds(perTier({ quick: 2, ci: 8, long: 80 })))('seed %i', async (seed) => {
    using dir = scratch();
    const [path, raw] = [dir.path('image.qcow2'), dir.path('view.raw')];
    const { integer } = caseContext(seed);
    const bits = 2 ** integer(7);
    const options = `lazy_refcounts=on,cluster_size=${[512, 4096, 65_536][seed % 3]},refcount_bits=${bits}`;
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path, '4M');
    for (let kill = 0; kill < 2; kill++) {
      const commands = Array.from({ length: 6 }, () => {
        const what = ['write -P 5', 'discard', 'write -z', 'write -P 7'][integer(4)];
        return ['-c', `${what} ${integer(3000)}k ${1 + integer(600)}k`];
      });
      spawnSync('qemu-io', [
        '-f',
        'qcow2',
        ...commands.flat(),
        '-c',
        'flush',
        '-c',
        'sigraise 9',
        path,
      ]);
      run('qemu-img', 'convert', '-U', '-f', 'qcow2', '-O', 'raw', path, raw);
      const disk = new MemoryDisk();
      await load(disk, '/image', path);
      {
        await using image = await openOn(disk, '/image', 'write');
        expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      }
      dump(disk, '/image', path);
      run('qemu-img', 'check', '-q', path);
      run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path, raw);
    }
  });
});

test('refused, and nothing is written: more is wrong than refcounts', async () => {
  const disk = await goldenDisk(goldenNamed('dirty.qcow2'));
  const craft = new Craft(disk, GOLDEN_PATH);
  craft.setWord(craft.entryAt(0), craft.word(craft.entryAt(0)) | 0x0100_0000);
  const before = bytesOn(disk, GOLDEN_PATH);
  await expect(openOn(disk, GOLDEN_PATH, 'write')).rejects.toMatchObject({
    code: 'IMAGE_NEEDS_REPAIR',
  });
  expect(bytesOn(disk, GOLDEN_PATH)).toEqual(before);
});

test('what is written then is not what was in use and counted as free', async () => {
  const disk = await goldenDisk(goldenNamed('dirty.qcow2'));
  const old = await readAll(await openOn(disk, GOLDEN_PATH, 'read'));
  await using image = await openOn(disk, GOLDEN_PATH, 'write');
  await image.write(guestOffset(40_960), new Uint8Array(8192).fill(1), plain);
  await image.flush();
  const seen = await readAll(image);
  expect(seen.subarray(0, 40_960)).toEqual(old.subarray(0, 40_960));
  expect(new Craft(disk, GOLDEN_PATH).word(INCOMPATIBLE_AT + 4)).toBe(0);
});
