import { MemoryDisk } from '@downfold/storage-memory';
import { draw } from '../tools/draw.ts';
import { type Mutation, mutate, mutated } from './mutate.ts';
import { type Places, placesOf } from './places.ts';
import { DATA, IMAGE, type SeedImage, seedImages } from './seed-images.ts';

/** A valid image, ready for mutants to be made of it. */
export interface Prepared extends SeedImage {
  readonly bytes: Uint8Array;
  readonly places: Places;
}

/** A mutant, and what it was made of. */
export interface Mutant {
  readonly seed: number;
  readonly of: SeedImage;
  readonly mutation: Mutation;
  readonly bytes: Uint8Array;
  /** With the image of those bytes; its own. */
  readonly disk: MemoryDisk;
}

let prepared: Promise<readonly Prepared[]> | undefined;

/** All valid images. */
export function preparedImages(): Promise<readonly Prepared[]> {
  prepared ??= seedImages().then((images) => images.map(prepare));
  return prepared;
}

/** The mutant of a seed: always the same. */
export async function mutantOf(seed: number): Promise<Mutant> {
  const of = heaviest(await preparedImages(), draw(seed * 31 + 7).integer(1 << 30) / (1 << 30));
  const mutation = mutate(of.bytes, of.places, seed);
  const bytes = mutated(of.bytes, mutation);
  return { seed, of, mutation, bytes, disk: diskOf(bytes, of) };
}

/** A disk with an image of these bytes, and the data file of `of`, if it has one. */
export function diskOf(bytes: Uint8Array, of: SeedImage): MemoryDisk {
  const disk = new MemoryDisk();
  disk.fileOf(disk.create(IMAGE)).write(0, bytes);
  if (of.hasDataFile) disk.fileOf(disk.create(DATA)).write(0, contentOf(of.disk, DATA));
  return disk;
}

function prepare(image: SeedImage): Prepared {
  const bytes = contentOf(image.disk, IMAGE);
  return { ...image, bytes, places: placesOf(bytes) };
}

/** All bytes of a file. */
export function contentOf(disk: MemoryDisk, path: string): Uint8Array {
  const file = disk.fileOf(disk.inodeOf(path));
  const bytes = new Uint8Array(file.length);
  file.read(0, bytes);
  return bytes;
}

/** @param share from 0 to 1: where in the sum of weights */
function heaviest(images: readonly Prepared[], share: number): Prepared {
  let left = share * images.reduce((sum, { weight }) => sum + weight, 0);
  for (const image of images) {
    left -= image.weight;
    if (left < 0) return image;
  }
  throw new Error('there are no seed images');
}

/** What a mutant is, in one line. */
export function toldOf({ of, mutation }: Mutant): string {
  return `'${of.name}', ${mutation.told.join('; ')}`;
}
