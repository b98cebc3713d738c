import { constants } from 'node:fs';
import { copyFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import { qemuIo } from '../tools/qemu.ts';
import type { ImageSpec, PoolSpec } from './pools.ts';

/** The images of a pool in a directory, and how to put them back as they were. */
export interface Pool {
  readonly spec: PoolSpec;
  readonly directory: string;
  path(name: string): string;
  /** A raw copy of what an image reads as, made before anything happened to it. */
  before(name: string): string;
  /** Puts every image back as it was, and removes whatever else lies there. */
  restore(): Promise<void>;
  /** Names in the directory that are none of the images: a journal, marks beside images. */
  leftovers(): Promise<readonly string[]>;
  /** Removes all that was made for it. */
  remove(): Promise<void>;
}

/** File name of an image. */
export function fileName({ name, format }: ImageSpec): string {
  return `${name}.${format}`;
}

/** The image of that name. */
export function imageOf({ name: pool, images }: PoolSpec, name: string): ImageSpec {
  const found = images.find((one) => one.name === name);
  if (found === undefined) throw new RangeError(`${pool} has no image ${name}`);
  return found;
}

/** Makes the images of a pool with QEMU's tools, in a new directory; no two clusters alike, in no two images. */
export async function makePool(spec: PoolSpec, parent: string): Promise<Pool> {
  const directory = join(parent, spec.name);
  const saved = join(parent, `${spec.name}-saved`);
  await mkdir(directory);
  await mkdir(saved);
  for (const [index, image] of spec.images.entries()) {
    await makeImage(spec, image, directory);
    await fill(image, join(directory, fileName(image)), join(saved, 'pattern'), index + 1);
  }
  const names = spec.images.map(fileName);
  for (const image of spec.images) {
    const path = join(directory, fileName(image));
    await copyFile(path, join(saved, fileName(image)), constants.COPYFILE_FICLONE);
    await must('qemu-img', [
      'convert',
      '-f',
      image.format,
      '-O',
      'raw',
      path,
      join(saved, image.name),
    ]);
  }
  const leftovers = async (): Promise<string[]> =>
    (await readdir(directory)).filter((name) => !names.includes(name));
  return {
    spec,
    directory,
    path: (name) => join(directory, fileName(imageOf(spec, name))),
    before: (name) => join(saved, name),
    leftovers,
    remove: async () => {
      for (const path of [directory, saved]) await rm(path, { recursive: true });
    },
    restore: async () => {
      for (const name of [...(await leftovers()), ...names])
        await rm(join(directory, name), { force: true });
      for (const name of names)
        await copyFile(join(saved, name), join(directory, name), constants.COPYFILE_FICLONE);
    },
  };
}

async function makeImage(spec: PoolSpec, image: ImageSpec, directory: string): Promise<void> {
  const { format, backing, options, size } = image;
  const args = ['create', '-q', '-f', format];
  if (options !== undefined) args.push('-o', options);
  if (backing !== null) {
    const below = imageOf(spec, backing);
    args.push('-b', fileName(below), '-F', below.format);
  }
  await must('qemu-img', [...args, fileName(image), `${size}K`], { cwd: directory });
}

/** A prime number of bytes: no two clusters of a run are alike. */
const PATTERN_BYTES = 65_521;

async function fill(image: ImageSpec, path: string, pattern: string, seed: number): Promise<void> {
  const writes: string[] = [];
  for (const [index, [at, length]] of image.data.entries()) {
    const from = draw(16 * seed + index);
    const file = `${pattern}-${index}`;
    await writeFile(
      file,
      Uint8Array.from({ length: PATTERN_BYTES }, () => from.integer(256)),
    );
    writes.push(`write -q -s ${file} ${at}k ${length}k`);
  }
  await qemuIo(path, image.format, writes);
}
