import { crc32 } from 'node:zlib';
import { type BackingReference, type Image, ImageError, type ImageMark } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { claimsUnknownAutoclear } from './foreign.ts';
import { SECTOR_BYTES } from './scenario.ts';

/** In place of a content: the layer leaves this sector to what lies below. */
export const OPEN = -1;
/** The content of a sector of zeros. */
export const ZEROS = 0;

/**
 * What one file says, read and checked once by the project's own code for its format. Contents are numbers, equal for
 * equal sectors, so that a million views can be compared.
 */
export interface Picture {
  /** Number of this picture among all of a gallery. */
  readonly id: number;
  /** Why it cannot be opened or read; then all else is empty. */
  readonly broken: string | null;
  readonly corruptions: readonly string[];
  readonly leaks: number;
  /** Bytes. */
  readonly virtualSize: number;
  readonly backing: BackingReference | null;
  readonly mark: ImageMark | null;
  /** For each sector of the disk: its content, or `OPEN`. */
  readonly sectors: Int32Array;
  /** It has an autoclear bit that Downfold does not know. */
  readonly claims: boolean;
}

/** Numbers for contents of sectors, equal for equal bytes. */
export class Contents {
  readonly #sectors: Buffer[] = [];
  /** Numbers of the contents with a checksum. */
  readonly #numbers: Map<number, number[]> = new Map();

  constructor() {
    this.#numberOf(Buffer.alloc(SECTOR_BYTES));
  }

  /** Numbers of the sectors of `bytes`, written to `into` from `at` on; what is missing of the last one counts as zeros. */
  number(bytes: Buffer, into: Int32Array, at: number): void {
    for (let from = 0; from < bytes.length; from += SECTOR_BYTES)
      into[at + from / SECTOR_BYTES] = this.#numberOf(bytes.subarray(from, from + SECTOR_BYTES));
  }

  /** The content of a sector whose first `bytes` are those of one sector, and the rest those of another. */
  join(first: number, bytes: number, rest: number): number {
    const sector = Buffer.from(this.#sectors[rest] as Buffer);
    (this.#sectors[first] as Buffer).copy(sector, 0, 0, bytes);
    return this.#numberOf(sector);
  }

  #numberOf(bytes: Buffer): number {
    const sector = bytes.length === SECTOR_BYTES ? bytes : Buffer.concat([bytes], SECTOR_BYTES);
    const sum = crc32(sector);
    const alike = this.#numbers.get(sum) ?? [];
    for (const number of alike) if (sector.equals(this.#sectors[number] as Buffer)) return number;
    const number = this.#sectors.push(Buffer.from(sector)) - 1;
    this.#numbers.set(sum, [...alike, number]);
    return number;
  }
}

/** Opens, checks and reads one layer. Owns `storage`. */
export async function takePicture(
  id: number,
  format: string,
  storage: Storage,
  contents: Contents,
): Promise<Picture> {
  try {
    const image = await (format === 'raw' ? raw : qcow2).open(storage, { mode: 'read' });
    const { virtualSize } = image.geometry;
    const corruptions: string[] = [];
    const { leaks } = await image.check({
      onFinding: ({ severity, message }) => {
        if (severity === 'corruption') corruptions.push(message);
      },
    });
    const sectors = await readSectors(image, contents);
    const head = Buffer.alloc(SECTOR_BYTES);
    await storage.read(hostOffset(0), head);
    return {
      id,
      broken: null,
      corruptions,
      leaks,
      virtualSize,
      backing: image.backing,
      mark: image.mark,
      sectors,
      claims: format === 'qcow2' && claimsUnknownAutoclear(head),
    };
  } catch (cause) {
    if (!(cause instanceof ImageError)) throw cause;
    return { ...BROKEN, id, broken: cause.message };
  }
}

const BROKEN: Omit<Picture, 'id' | 'broken'> = {
  corruptions: [],
  leaks: 0,
  virtualSize: 0,
  backing: null,
  mark: null,
  sectors: new Int32Array(0),
  claims: false,
};

async function readSectors(image: Image, contents: Contents): Promise<Int32Array> {
  const { virtualSize } = image.geometry;
  const sectors = new Int32Array(Math.ceil(virtualSize / SECTOR_BYTES)).fill(OPEN);
  const range = { offset: 0 as never, length: virtualSize };
  for await (const batch of image.extents(range))
    for (const { offset, length, status } of batch) {
      const first = offset / SECTOR_BYTES;
      if (status === 'zero') sectors.fill(ZEROS, first, first + Math.ceil(length / SECTOR_BYTES));
      if (status !== 'data' && status !== 'compressed') continue;
      const bytes = Buffer.alloc(length);
      await image.read(offset, bytes, null);
      contents.number(bytes, sectors, first);
    }
  return sectors;
}
