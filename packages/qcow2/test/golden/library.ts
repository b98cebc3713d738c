import type { CowSource } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { hostOffset } from '@downfold/units';
import { belowOf, openOn, readAll } from '../support.ts';
import { type GoldenFacts, type GoldenImage, readImages, readManifest } from './manifest.ts';

const manifest = readManifest();
const bytes = readImages(manifest);

/** First line of the `qemu-img --version` that made them. */
export const goldenQemu: string = manifest.qemu;

/** Every golden image. */
export const goldenImages: readonly GoldenImage[] = manifest.images;

/** Where `goldenDisk` puts the image. */
export const GOLDEN_PATH = '/image';

/** The bytes of the file. */
export function bytesOf({ name }: GoldenImage): Uint8Array {
  return bytes.get(name) ?? new Uint8Array();
}

/** What QEMU reads in it. */
export function factsOf({ name, facts }: GoldenImage): GoldenFacts {
  if (facts === null) throw new Error(`${name} is refused: there are no facts about it`);
  return facts;
}

/** The image of that name. */
export function goldenNamed(wanted: string): GoldenImage {
  const found = goldenImages.find(({ name }) => name === wanted);
  if (found === undefined) throw new Error(`there is no golden image ${wanted}`);
  return found;
}

/** A disk in memory with a copy of the image. */
export async function goldenDisk(golden: GoldenImage): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await using storage = await memoryBackend(disk).create(GOLDEN_PATH, { secret: false });
  await storage.write(hostOffset(0), bytesOf(golden));
  return disk;
}

/** What the image reads as by Downfold, over `below`. */
export async function viewOf(golden: GoldenImage, below: CowSource | null): Promise<Uint8Array> {
  if (golden.format === 'raw') {
    const view = new Uint8Array(factsOf(golden).info.virtualSize);
    view.set(bytesOf(golden));
    return view;
  }
  await using image = await openOn(await goldenDisk(golden), GOLDEN_PATH, 'read');
  return await readAll(image, below);
}

/** What lies below the image by Downfold: other golden images; null when it has no backing file. */
export async function belowGolden(golden: GoldenImage): Promise<CowSource | null> {
  const { backing } = factsOf(golden).info;
  if (backing === null) return null;
  const found = goldenNamed(backing.name);
  return belowOf(await viewOf(found, await belowGolden(found)));
}
