import {
  type BitmapContent,
  type BitmapFacts,
  type Bitmaps,
  dirtyRanges,
  type NewBitmap,
} from '@downfold/image';
import { rangeEnd } from '@downfold/units';
import { bitmapBytes, bitsFor, setBits } from './bitmap-bits.ts';
import { assertBitmapSize, readBits } from './bitmap-data.ts';
import { closeBitmaps, saveBitmaps } from './bitmap-save.ts';
import { bitsOf } from './bitmap-set.ts';
import type { LiveBitmap } from './bitmap-types.ts';
import { GRANULARITY_BITS, isConsistent, LONGEST_BITMAP_NAME, readBitmaps } from './bitmaps.ts';
import { assertOpen, changeImage } from './change.ts';
import { imageError } from './corrupt.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import { BITMAP } from './structures.ts';
import { inTurn, writerOf } from './writer.ts';

type Ranges = Parameters<Bitmaps['mark']>[1];

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

  async assertCanAdd({ name, granularity }: NewBitmap): Promise<void> {
    assertHasBitmaps(this.#state);
    assertNew(this.#state, await this.list(), name, this.#granularity(granularity));
  }

  #granularity(wanted: number | undefined): number {
    return wanted ?? Math.min(65_536, Math.max(4096, this.#state.geometry.clusterSize));
  }

  async add(...bitmaps: readonly NewBitmap[]): Promise<void> {
    await this.#change(async (before) => {
      const list = [...before];
      for (const bitmap of bitmaps) list.push(await this.#made(bitmap, list));
      return list;
    });
  }

  /** A new bitmap, which goes beside those of `list`. */
  async #made(
    { name, granularity, enabled = true, content }: NewBitmap,
    list: readonly LiveBitmap[],
  ): Promise<LiveBitmap> {
    const state = this.#state;
    const wanted = this.#granularity(granularity);
    assertNew(state, list, name, wanted);
    const { size } = state.header;
    const bits = new Uint8Array(bitmapBytes(size, wanted));
    if (content !== undefined) {
      assertSameDisk(state, content);
      await setRanges(bits, [dirtyRanges(content)], size, wanted);
    }
    return { name, granularity: wanted, enabled, consistent: true, bits, stored: null };
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
    await this.#add(name, [dirtyRanges(source)], () => assertSameDisk(this.#state, source));
  }

  async mark(name: string, ranges: Ranges): Promise<void> {
    await this.#add(name, ranges, () => {});
  }

  /** Adds ranges; `assertFits` is called in the turn of the change. */
  async #add(name: string, ranges: Ranges, assertFits: () => void): Promise<void> {
    await this.#change(async (list) => {
      const state = this.#state;
      const bitmap = usable(state, name);
      assertFits();
      const { size } = state.header;
      const { granularity } = bitmap;
      const bits = bitsFor(await bitsOf(state, bitmap), size, granularity);
      await setRanges(bits, ranges, size, granularity);
      bitmap.bits = bits;
      return list;
    });
  }

  async pause(name: string): Promise<void> {
    const state = this.#state;
    await changeImage(state, 'header', undefined, async () => {
      usable(state, name);
      writerOf(state).bitmaps.paused.add(name);
    });
  }

  async save(): Promise<void> {
    const state = this.#state;
    assertOpen(state);
    if (state.writer !== null) await inTurn(state, 'mutation', () => closeBitmaps(state));
  }

  abandon(): void {
    writerOf(this.#state).bitmaps.abandoned = true;
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
      assertHasBitmaps(state);
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

/** Sets the bits of all ranges of a disk of `size` bytes. */
async function setRanges(
  bits: Uint8Array,
  ranges: Ranges,
  size: number,
  granularity: number,
): Promise<void> {
  for await (const batch of ranges)
    for (const range of batch)
      setBits(
        bits,
        Math.floor(range.offset / granularity),
        Math.ceil(Math.min(size, rangeEnd(range)) / granularity),
      );
}

function assertSameDisk(state: Qcow2State, { virtualSize }: BitmapContent): void {
  if (virtualSize !== state.header.size)
    throw refusal(state, `merging a bitmap of a disk of ${virtualSize} bytes`);
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

function assertHasBitmaps(state: Qcow2State): void {
  if (state.header.version === 2) throw refusal(state, 'persistent bitmaps in a version 2 image');
}

function assertNew(
  state: Qcow2State,
  list: readonly { readonly name: string }[],
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
