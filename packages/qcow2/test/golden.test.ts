import type { CowSource, Image } from '@downfold/image';
import { memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { type GoldenFacts, type GoldenImage, readImages, readManifest } from './golden/manifest.ts';
import { type MapRun, mapLines } from './golden/map-lines.ts';
import { sha256 } from './golden/qemu-facts.ts';

/** Images that QEMU made, read without QEMU: the manifest says what QEMU's own tools read in them. */
const manifest = readManifest();
const bytesOf = readImages(manifest);
const images = manifest.images.map((image) => ({ image, name: image.name }));
const read = images.filter(({ image }) => image.facts !== null && image.format === 'qcow2');

function named(name: string): GoldenImage {
  const found = manifest.images.find((image) => image.name === name);
  if (found === undefined) throw new Error(`no golden image ${name}`);
  return found;
}

function factsOf(image: GoldenImage): GoldenFacts {
  if (image.facts === null) throw new Error(`no facts about ${image.name}`);
  return image.facts;
}

/** Opens a copy of an image in memory. */
async function open({ name }: GoldenImage, mode: 'read' | 'write'): Promise<Image> {
  const storage = await memoryBackend().create('/image', { secret: false });
  await storage.write(hostOffset(0), bytesOf.get(name) ?? new Uint8Array());
  return qcow2.open(storage, { mode });
}

/** The whole virtual disk; `backed`: with what its backing files hold. */
async function viewOf(golden: GoldenImage, backed: boolean): Promise<Uint8Array> {
  const { virtualSize, backing } = factsOf(golden).info;
  const view = new Uint8Array(virtualSize);
  if (golden.format === 'raw') view.set(bytesOf.get(golden.name) ?? []);
  else {
    await using image = await open(golden, 'read');
    const below = backing !== null && backed ? await belowOf(named(backing.name)) : null;
    await image.read(guestOffset(0), view, below);
  }
  return view;
}

/** A golden image as a backing file: zeros past its end. */
async function belowOf(golden: GoldenImage): Promise<CowSource> {
  const view = await viewOf(golden, true);
  return async (offset, target) => {
    target.fill(0);
    target.set(view.subarray(offset, offset + target.length));
  };
}

async function mapOf(image: Image): Promise<readonly string[]> {
  const runs: MapRun[] = [];
  const whole = { offset: guestOffset(0), length: byteLength(image.geometry.virtualSize) };
  for await (const batch of image.extents(whole))
    for (const extent of batch) {
      const { offset, length } = extent;
      const status =
        extent.status === 'zero' && extent.preallocated ? 'zero preallocated' : extent.status;
      runs.push({ offset, length, status, host: extent.status === 'data' ? extent.host : null });
    }
  return mapLines(runs);
}

test('the manifest covers what a reader of qcow2 may meet', () => {
  expect(manifest.qemu).toMatch(/^qemu-img version 7\.2/);
  expect(images.length).toBeGreaterThan(45);
  expect(new Set(images.map(({ name }) => name)).size).toBe(images.length);
});

test.each(images)('$name is the file that QEMU made', ({ image }) => {
  expect(sha256(bytesOf.get(image.name) ?? new Uint8Array())).toBe(image.sha256);
});

describe.each(read)('$name', ({ image: golden }) => {
  const facts = factsOf(golden);

  test('reads as QEMU reads it, alone and over its backing files', async () => {
    expect(sha256(await viewOf(golden, false)), 'alone').toBe(facts.layer);
    expect(sha256(await viewOf(golden, true)), 'over its backing files').toBe(facts.view);
  });

  test('says of itself what `qemu-img info` says', async () => {
    await using image = await open(golden, 'read');
    const { virtualSize, clusterSize, backing, specific } = facts.info;
    expect(image.geometry).toMatchObject({ virtualSize, clusterSize });
    expect(image.backing).toEqual(backing);
    expect(specific).toMatchObject(image.describe());
    expect(image.mark).toBeNull();
    expect(qcow2.recognises((bytesOf.get(golden.name) ?? new Uint8Array()).subarray(0, 512))).toBe(
      true,
    );
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

test.each(images.filter(({ image }) => image.refused !== undefined))(
  '$name is refused',
  async ({ image }) => {
    await expect(open(image, 'read')).rejects.toMatchObject({ code: image.refused });
  },
);

test.each(images.filter(({ image }) => image.notForWriting !== undefined))(
  '$name is not opened for writing',
  async ({ image }) => {
    await expect(open(image, 'write')).rejects.toMatchObject({ code: image.notForWriting });
  },
);
