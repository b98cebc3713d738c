import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { MemoryDisk } from '@downfold/storage-memory';
import { DATA, IMAGE } from './seed-images.ts';

/** Images that were once not treated as they must be: one file each, which are tried again and again. */
const DIRECTORY = fileURLToPath(new URL('../../test/corpus/', import.meta.url));

/** A kept image. */
export interface Kept {
  readonly name: string;
  /** What was wrong, and what must be. */
  readonly because: string;
  readonly disk: MemoryDisk;
}

interface KeptFile {
  readonly because: string;
  /** Deflated, as base64. */
  readonly image: string;
  /** The same of the external data file, if there is one. */
  readonly data?: string;
}

/** All of them. */
export function keptImages(): readonly Kept[] {
  return readdirSync(DIRECTORY)
    .sort()
    .map((file) => {
      const { because, image, data } = JSON.parse(
        readFileSync(join(DIRECTORY, file), 'utf8'),
      ) as KeptFile;
      const disk = new MemoryDisk();
      disk.fileOf(disk.create(IMAGE)).write(0, unpacked(image));
      if (data !== undefined) disk.fileOf(disk.create(DATA)).write(0, unpacked(data));
      return { name: file.replace(/\.json$/, ''), because, disk };
    });
}

/** Keeps an image, in `directory`; returns the path of its file. */
export function keep(
  name: string,
  because: string,
  image: Uint8Array,
  data: Uint8Array | null,
  directory: string = DIRECTORY,
): string {
  const path = join(directory, `${name}.json`);
  const kept: KeptFile = { because, image: packed(image), ...(data && { data: packed(data) }) };
  writeFileSync(path, `${JSON.stringify(kept, null, 2)}\n`);
  return path;
}

function packed(bytes: Uint8Array): string {
  return deflateRawSync(bytes, { level: 9 }).toString('base64');
}

function unpacked(text: string): Uint8Array {
  return inflateRawSync(Buffer.from(text, 'base64'));
}
