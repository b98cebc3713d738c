import { byteLength, type GuestRange, guestOffset } from '@downfold/units';
import { bitmapBytes, bitsFor, runsOf, setBits } from './bitmap-bits.ts';
import { assertBitmapSize, readBits } from './bitmap-data.ts';
import { saveBitmaps } from './bitmap-save.ts';
import { bitsOf } from './bitmap-set.ts';
import type { LiveBitmap } from './bitmap-types.ts';
import { GRANULARITY_BITS, isConsistent, LONGEST_BITMAP_NAME, readBitmaps } from './bitmaps.ts';
import { assertOpen, changeImage } from './change.ts';
import { imageError } from './corrupt.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import { BITMAP } from './structures.ts';
import { writerOf } from './writer.ts';

/** What there is to say of a persistent bitmap. */
export interface BitmapFacts {
  readonly name: string;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
  /** It records what is written. */
  readonly enabled: boolean;
  /** Whoever wrote to the disk did not save it: it can only be removed. */
  readonly inconsistent: boolean;
}

/** What a bitmap says of the disk: bit i stands for guest bytes [i * granularity, (i + 1) * granularity). */
export interface BitmapContent {
  readonly granularity: number;
  /** Of the disk, in bytes. */
  readonly virtualSize: number;
  /** The least significant bit of each byte first. */
  readonly bits: Uint8Array;
}

/** What a new bitmap is. */
export interface NewBitmap {
  readonly name: string;
  /** Bytes: a power of two from 512 to 2 GiB. Default: the cluster size, but at least 4 KiB and at most 64 KiB. */
  readonly granularity?: number;
  /** Default true. */
  readonly enabled?: boolean;
}

/**
 * The persistent dirty bitmaps of one image. While the image is open for writing, those that are enabled record every change of the disk;
 * they are saved when it is closed. Each change here saves all of them, durably and atomically. Refused with `IMAGE_UNSUPPORTED`:
 * version 2 images, names that are taken, and what an inconsistent bitmap cannot be used for; `IMAGE_RANGE` for unknown names.
 */
export interface Bitmaps {
  list(): Promise<readonly BitmapFacts[]>;
  content(name: string): Promise<BitmapContent>;
  add(bitmap: NewBitmap): Promise<void>;
  remove(name: string): Promise<void>;
  clear(name: string): Promise<void>;
  enable(name: string): Promise<void>;
  disable(name: string): Promise<void>;
  /** Adds what `source` says, of a disk of the same size, whatever its granularity. */
  merge(name: string, source: BitmapContent): Promise<void>;
}

export class Qcow2Bitmaps implements Bitmaps {
  readonly #state: Qcow2State;

  constructor(state: Qcow2State) {
    this.#state = state;
  }

  async list(): Promise<readonly BitmapFacts[]> {
    assertOpen(this.#state);
    const { writer } = this.#state;
    if (writer !== null) return writer.bitmaps.list.map(factsOf);
    return ((await readBitmaps(this.#state))?.bitmaps ?? []).map((stored) => ({
      name: stored.name,
      granularity: stored.granularity,
      enabled: (stored.flags & BITMAP.auto) !== 0,
      inconsistent: !isConsistent(stored),
    }));
  }

  async content(name: string): Promise<BitmapContent> {
    assertOpen(this.#state);
    const state = this.#state;
    const virtualSize = state.header.size;
    if (state.writer !== null) {
      const bitmap = usable(state, name);
      const bits = bitsFor(await bitsOf(state, bitmap), virtualSize, bitmap.granularity);
      return { granularity: bitmap.granularity, virtualSize, bits };
    }
    const stored = (await readBitmaps(state))?.bitmaps.find((bitmap) => bitmap.name === name);
    if (stored === undefined) throw unknown(state, name);
    if (!isConsistent(stored)) throw inconsistent(state, name);
    const bits = await readBits(state, stored, virtualSize);
    return {
      granularity: stored.granularity,
      virtualSize,
      bits: bitsFor(bits, virtualSize, stored.granularity),
    };
  }

  async add({ name, granularity, enabled = true }: NewBitmap): Promise<void> {
    const wanted =
      granularity ?? Math.min(65_536, Math.max(4096, this.#state.geometry.clusterSize));
    await this.#change((list) => {
      const { size } = this.#state.header;
      assertNew(this.#state, list, name, wanted);
      const bits = new Uint8Array(bitmapBytes(size, wanted));
      const added = { name, granularity: wanted, enabled, consistent: true, bits, stored: null };
      return [...list, added];
    });
  }

  async remove(name: string): Promise<void> {
    await this.#change((list) => {
      const gone = named(this.#state, name);
      return list.filter((bitmap) => bitmap !== gone);
    });
  }

  async clear(name: string): Promise<void> {
    await this.#change((list) => {
      const bitmap = usable(this.#state, name);
      bitmap.bits = new Uint8Array(bitmapBytes(this.#state.header.size, bitmap.granularity));
      return list;
    });
  }

  async enable(name: string): Promise<void> {
    await this.#setEnabled(name, true);
  }

  async disable(name: string): Promise<void> {
    await this.#setEnabled(name, false);
  }

  async merge(name: string, source: BitmapContent): Promise<void> {
    await this.#change(async (list) => {
      const state = this.#state;
      const bitmap = usable(state, name);
      const { size } = state.header;
      if (source.virtualSize !== size)
        throw refusal(state, `merging a bitmap of a disk of ${source.virtualSize} bytes`);
      const bits = bitsFor(await bitsOf(state, bitmap), size, bitmap.granularity);
      for (const [from, to] of runsOf(source.bits))
        setBits(
          bits,
          Math.floor((from * source.granularity) / bitmap.granularity),
          Math.ceil(Math.min(size, to * source.granularity) / bitmap.granularity),
        );
      bitmap.bits = bits;
      return list;
    });
  }

  async #setEnabled(name: string, enabled: boolean): Promise<void> {
    await this.#change((list) => {
      usable(this.#state, name).enabled = enabled;
      return list;
    });
  }

  /** Changes the set in its turn, and saves it. */
  async #change(
    work: (list: readonly LiveBitmap[]) => readonly LiveBitmap[] | Promise<readonly LiveBitmap[]>,
  ): Promise<void> {
    const state = this.#state;
    await changeImage(state, 'header', undefined, async () => {
      if (state.header.version === 2)
        throw refusal(state, 'persistent bitmaps in a version 2 image');
      const { bitmaps } = writerOf(state);
      const before = bitmaps.list.map((bitmap) => ({ ...bitmap }));
      try {
        bitmaps.list = [...(await work(bitmaps.list))];
        await saveBitmaps(state);
      } catch (cause) {
        bitmaps.list = before;
        throw cause;
      }
    });
  }
}

/** The guest ranges that a bitmap says changed, in order. */
export function* dirtyRanges({
  bits,
  granularity,
  virtualSize,
}: BitmapContent): Generator<GuestRange> {
  for (const [from, to] of runsOf(bits)) {
    const offset = from * granularity;
    const end = Math.min(virtualSize, to * granularity);
    yield { offset: guestOffset(offset), length: byteLength(end - offset) };
  }
}

function factsOf({ name, granularity, enabled, consistent }: LiveBitmap): BitmapFacts {
  return { name, granularity, enabled, inconsistent: !consistent };
}

function named(state: Qcow2State, name: string): LiveBitmap {
  const found = writerOf(state).bitmaps.list.find((bitmap) => bitmap.name === name);
  if (found === undefined) throw unknown(state, name);
  return found;
}

function usable(state: Qcow2State, name: string): LiveBitmap {
  const bitmap = named(state, name);
  if (!bitmap.consistent) throw inconsistent(state, name);
  return bitmap;
}

function assertNew(
  state: Qcow2State,
  list: readonly LiveBitmap[],
  name: string,
  granularity: number,
): void {
  const bits = Math.log2(granularity);
  const bytes = new TextEncoder().encode(name).length;
  if (list.some((bitmap) => bitmap.name === name))
    throw refusal(state, `a second bitmap called ${name}`);
  if (bytes === 0 || bytes > LONGEST_BITMAP_NAME)
    throw refusal(state, `a bitmap with a name of ${bytes} bytes`);
  if (!Number.isInteger(bits) || bits < GRANULARITY_BITS.least || bits > GRANULARITY_BITS.most)
    throw refusal(state, `a bitmap with a granularity of ${granularity} bytes`);
  if (state.header.size === 0) throw refusal(state, 'a bitmap of an empty disk');
  if (list.length >= SAFE_LIMITS.bitmaps)
    throw imageError('IMAGE_LIMIT', state.label, 'has as many bitmaps as it may have');
  assertBitmapSize(state, state.header.size, granularity);
}

function unknown(state: Qcow2State, name: string): Error {
  return imageError('IMAGE_RANGE', state.label, `has no bitmap '${name}'`);
}

function inconsistent(state: Qcow2State, name: string): Error {
  return refusal(state, `bitmap '${name}', which is inconsistent: it can only be removed`);
}

function refusal(state: Qcow2State, feature: string): Error {
  return imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}
