import type { MemoryDisk } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { changed, writable } from './golden/changed.ts';
import {
  bytesOf,
  factsOf,
  GOLDEN_PATH,
  goldenDisk,
  goldenNamed,
  viewOf,
} from './golden/library.ts';
import { openOn, readAll } from './support.ts';

/**
 * QEMU's images written by Downfold: compressed clusters, clusters shared with snapshots, zero clusters and others give way to new
 * ones, and nothing else changes. `golden-qemu.test.ts` has QEMU judge the same.
 */
describe.each(writable.map((image) => ({ name: image.name, image })))(
  '$name',
  ({ image: golden }) => {
    test('is written, and stays as sound as it was', async () => {
      const { disk, model, below } = await changed(golden, 1);
      await using image = await openOn(disk, GOLDEN_PATH, 'read');
      const view = await readAll(image, below);
      expect(Buffer.compare(view, model)).toBe(0);
      const { corruptions, leaks } = await image.check();
      expect([corruptions, leaks]).toEqual([0, factsOf(golden).check?.leaks]);
    });
  },
);

test('leaks that QEMU sees are given back, and nothing else', async () => {
  const golden = goldenNamed('leaks.qcow2');
  const disk = await goldenDisk(golden);
  await using image = await openOn(disk, GOLDEN_PATH, 'write');
  expect(await image.reclaimLeaks()).toBe(factsOf(golden).check?.leaks);
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(Buffer.compare(await readAll(image), await viewOf(golden, null))).toBe(0);
});

test('what nobody knows in a header stays where compatibility asks for it', async () => {
  const kept = await changed(goldenNamed('unknown-extension.qcow2'), 1);
  expect(Buffer.from(headOf(kept.disk)).includes('hello there')).toBe(true);
  {
    await using image = await openOn(kept.disk, GOLDEN_PATH, 'write');
    await image.setBacking({ name: '../another name.raw', format: 'raw' });
  }
  expect(Buffer.from(headOf(kept.disk)).includes('hello there')).toBe(true);

  const before = bytesOf(goldenNamed('unknown-bits.qcow2'));
  const after = headOf((await changed(goldenNamed('unknown-bits.qcow2'), 1)).disk);
  expect(after.subarray(80, 88), 'compatible bits stay').toEqual(before.subarray(80, 88));
  expect(after.subarray(88, 96), 'autoclear bits go').toEqual(new Uint8Array(8));
});

function headOf(disk: MemoryDisk): Uint8Array {
  const head = new Uint8Array(1024);
  disk.fileOf(disk.inodeOf(GOLDEN_PATH)).read(0, head);
  return head;
}
