import { caseContext } from '@downfold/compliance';
import type { CowSource, Image } from '@downfold/image';
import type { MemoryDisk } from '@downfold/storage-memory';
import { guestOffset } from '@downfold/units';
import { openOn, range } from '../support.ts';
import { belowGolden, GOLDEN_PATH, goldenDisk, goldenImages, viewOf } from './library.ts';
import type { GoldenImage } from './manifest.ts';

const STEPS = 25;

/** An image that Downfold changed, and what its disk must read as now. */
export interface Changed {
  readonly disk: MemoryDisk;
  readonly model: Uint8Array;
  readonly below: CowSource | null;
}

/** Golden images that may be written: sound but for leaks, and not marked. */
export const writable: readonly GoldenImage[] = goldenImages.filter(
  ({ facts, notForWriting }) => facts?.check?.corruptions === 0 && notForWriting === undefined,
);

/** Opens a copy for writing and makes random changes, drawn from `seed`. */
export async function changed(golden: GoldenImage, seed: number): Promise<Changed> {
  const disk = await goldenDisk(golden);
  const below = await belowGolden(golden);
  const model = await viewOf(golden, below);
  await using image = await openOn(disk, GOLDEN_PATH, 'write');
  for (let step = 0; step < STEPS; step++) await change(image, model, below, seed * 1000 + step);
  await image.flush();
  return { disk, model, below };
}

async function change(
  image: Image,
  model: Uint8Array,
  below: CowSource | null,
  seed: number,
): Promise<void> {
  const { bytes, integer, random } = caseContext(seed);
  const { clusterSize } = image.geometry;
  const at = integer(model.length);
  const length = 1 + integer(Math.min(model.length - at, clusterSize * 2));
  const drawn = random();
  if (drawn < 0.5) {
    const source = bytes(length);
    await image.write(guestOffset(at), source, { fill: below });
    model.set(source, at);
  } else if (drawn < 0.75) {
    await image.writeZeroes(range(at, length), { fill: below });
    model.fill(0, at, at + length);
  } else if (drawn < 0.9) {
    // whole clusters: a compressed one cannot be given up in parts
    const from = Math.floor(at / clusterSize) * clusterSize;
    const to = Math.min(model.length, from + clusterSize * (1 + integer(2)));
    await image.deallocate(range(from, to - from));
    model.fill(0, from, to);
    await below?.(guestOffset(from), model.subarray(from, to));
  } else await image.flush();
}
