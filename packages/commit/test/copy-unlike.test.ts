import type { CowSource, Image } from '@downfold/image';
import { memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, rangeBetween } from '@downfold/units';
import { expect, it } from 'vitest';
import { copyUnlike } from '../src/copy-unlike.ts';
import { CLUSTER, toy } from './toy-format.ts';

/** A disk whose clusters hold one byte each. */
function disk(...clusters: readonly number[]): CowSource {
  return async (offset, target) => {
    for (let at = 0; at < target.length; at++)
      target[at] = clusters[Math.floor((offset + at) / CLUSTER)] ?? 0;
  };
}

async function overlay(clusters: number): Promise<Image> {
  const storage = await memoryBackend().create('/overlay', { secret: false });
  const backing = { name: 'old', format: 'toy' };
  return toy.create(storage, { virtualSize: byteLength(clusters * CLUSTER), backing });
}

/** A letter for each cluster: `d` data, `z` zeros, `u` unallocated. */
async function cellsOf(image: Image): Promise<string> {
  const letters: string[] = [];
  const { virtualSize } = image.geometry;
  for await (const batch of image.extents(rangeBetween(guestOffset(0), virtualSize)))
    for (const { status } of batch) letters.push(status[0] as string);
  return letters.join('');
}

/** The first byte of each cluster that an image shows over a disk. */
async function shown(image: Image, below: CowSource): Promise<number[]> {
  const bytes = new Uint8Array(image.geometry.virtualSize);
  await image.read(guestOffset(0), bytes, below);
  return [...bytes.keys()].filter((at) => at % CLUSTER === 0).map((at) => bytes[at] as number);
}

it('writes what differs, zeros as zeros, and leaves the rest to what lies below', async () => {
  await using image = await overlay(6);
  const [old, fresh] = [disk(1, 2, 0, 0, 5, 6), disk(1, 9, 9, 0, 5, 9)];
  const now: CowSource = (offset, target) => image.read(offset, target, old);
  const { virtualSize } = image.geometry;
  await copyUnlike(image, rangeBetween(guestOffset(0), virtualSize), now, fresh, old);
  expect(await cellsOf(image)).toBe('udzuud');
  expect(await shown(image, fresh)).toEqual([1, 2, 0, 0, 5, 6]);
});

it('touches nothing outside its range, and completes the units that it cuts', async () => {
  await using image = await overlay(3);
  const [old, fresh] = [disk(1, 2, 3), disk(7, 8, 9)];
  const now: CowSource = (offset, target) => image.read(offset, target, old);
  const range = rangeBetween(guestOffset(CLUSTER + 512), 2 * CLUSTER - 512);
  await copyUnlike(image, range, now, fresh, old);
  expect(await cellsOf(image)).toBe('udu');
  expect(await shown(image, fresh)).toEqual([7, 2, 9]);
});
