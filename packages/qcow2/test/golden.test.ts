import type { Image } from '@downfold/image';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import {
  belowGolden,
  bytesOf,
  factsOf,
  GOLDEN_PATH,
  goldenDisk,
  goldenImages,
  goldenQemu,
  viewOf,
} from './golden/library.ts';
import type { GoldenImage } from './golden/manifest.ts';
import { type MapRun, mapLines } from './golden/map-lines.ts';
import { sha256 } from './golden/qemu-facts.ts';
import { openOn, range } from './support.ts';

/** Images that QEMU made, read without QEMU: the manifest says what QEMU's own tools read in them. */
const titled = (images: readonly GoldenImage[]) =>
  images.map((image) => ({ name: image.name, image }));
const readable = goldenImages.filter(({ facts, format }) => facts !== null && format === 'qcow2');

async function open(golden: GoldenImage, mode: 'read' | 'write'): Promise<Image> {
  return openOn(await goldenDisk(golden), GOLDEN_PATH, mode);
}

async function mapOf(image: Image): Promise<readonly string[]> {
  const runs: MapRun[] = [];
  for await (const batch of image.extents(range(0, image.geometry.virtualSize)))
    for (const extent of batch) {
      const { offset, length } = extent;
      const host = extent.status === 'data' ? extent.host : null;
      const preallocated = extent.status === 'zero' && extent.preallocated;
      runs.push({
        offset,
        length,
        host,
        status: preallocated ? 'zero preallocated' : extent.status,
      });
    }
  return mapLines(runs);
}

test('there are many, and QEMU 7.2 made them', () => {
  expect(goldenQemu).toMatch(/^qemu-img version 7\.2/);
  expect(goldenImages.length).toBeGreaterThan(45);
  expect(new Set(goldenImages.map(({ name }) => name)).size).toBe(goldenImages.length);
});

test.each(titled(goldenImages))('$name is the file that QEMU made', ({ image }) => {
  expect(sha256(bytesOf(image))).toBe(image.sha256);
});

test.each(titled(goldenImages.filter(({ format }) => format === 'raw')))(
  '$name reads as QEMU reads it',
  async ({ image }) => {
    expect(sha256(await viewOf(image, null))).toBe(factsOf(image).view);
  },
);

describe.each(titled(readable))('$name', ({ image: golden }) => {
  const facts = factsOf(golden);

  test('reads as QEMU reads it, alone and over its backing files', async () => {
    expect(sha256(await viewOf(golden, null)), 'alone').toBe(facts.layer);
    expect(sha256(await viewOf(golden, await belowGolden(golden))), 'in its chain').toBe(
      facts.view,
    );
  });

  test('says of itself what `qemu-img info` says', async () => {
    await using image = await open(golden, 'read');
    const { virtualSize, clusterSize, backing, specific } = facts.info;
    expect(image.geometry).toMatchObject({ virtualSize, clusterSize });
    expect(image.backing).toEqual(backing);
    expect(specific).toMatchObject((await image.describe()).specific);
    expect(image.mark).toBeNull();
    expect(qcow2.recognises(bytesOf(golden).subarray(0, 512))).toBe(true);
  });

  test('has the extents that `qemu-img map` shows', async () => {
    await using image = await open(golden, 'read');
    expect(await mapOf(image)).toEqual(facts.map);
  });

  test('is as sound as `qemu-img check` finds it', async () => {
    await using image = await open(golden, 'read');
    expect(await image.check()).toEqual(facts.check);
  });
});

test.each(titled(goldenImages.filter(({ refused }) => refused !== undefined)))(
  '$name is refused',
  async ({ image }) => {
    await expect(open(image, 'read')).rejects.toMatchObject({ code: image.refused });
  },
);

test.each(titled(goldenImages.filter(({ notForWriting }) => notForWriting !== undefined)))(
  '$name is not opened for writing',
  async ({ image }) => {
    await expect(open(image, 'write')).rejects.toMatchObject({ code: image.notForWriting });
  },
);
