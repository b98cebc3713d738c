import { byteLength, type GuestRange, guestOffset } from '@downfold/units';

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
  /** What it begins with, of a disk of the same size. Default: nothing. */
  readonly content?: BitmapContent;
}

/**
 * The persistent dirty bitmaps of one image. While the image is open for writing, those that are enabled record every change of the disk;
 * they are saved when it is closed. Each change here saves all of them, durably and atomically. Refused with `IMAGE_UNSUPPORTED`:
 * version 2 images, names that are taken, and what an inconsistent bitmap cannot be used for; `IMAGE_RANGE` for unknown names.
 */
export interface Bitmaps {
  list(): Promise<readonly BitmapFacts[]>;
  content(name: string): Promise<BitmapContent>;
  /** All of them, or none. */
  add(...bitmaps: readonly NewBitmap[]): Promise<void>;
  /** Rejects as `add` would; writes nothing. */
  assertCanAdd(bitmap: NewBitmap): Promise<void>;
  remove(name: string): Promise<void>;
  clear(name: string): Promise<void>;
  enable(name: string): Promise<void>;
  disable(name: string): Promise<void>;
  /** Adds what `source` says, of a disk of the same size, whatever its granularity. */
  merge(name: string, source: BitmapContent): Promise<void>;
  /** Adds ranges of the disk; what of them lies past its end is left out. */
  mark(
    name: string,
    ranges: AsyncIterable<Iterable<GuestRange>> | Iterable<Iterable<GuestRange>>,
  ): Promise<void>;
  /**
   * Until the image is closed the bitmap does not record, for who says by itself what its changes are. In the file it is what it was: enabled, and
   * inconsistent should this process die.
   */
  pause(name: string): Promise<void>;
  /**
   * Writes what closing the image would write of them, and ends a staging as closing does: for who opens the file once more before this one is closed,
   * and reads there what is true from then on. With the next change of the disk they are in use again. Does nothing where closing would do nothing.
   */
  save(): Promise<void>;
  /** Closing the image saves none of them: in the file they stay in use, and inconsistent. For where there is no room to save them. */
  abandon(): void;
}

/** The guest ranges that a bitmap says changed, in order. */
export function* dirtyRanges({
  bits,
  granularity,
  virtualSize,
}: BitmapContent): Generator<GuestRange, void, undefined> {
  for (const [from, to] of runsOf(bits)) {
    const offset = from * granularity;
    const end = Math.min(virtualSize, to * granularity);
    yield { offset: guestOffset(offset), length: byteLength(end - offset) };
  }
}

/** Runs of set bits: [from, to). */
function* runsOf(bits: Uint8Array): Generator<readonly [from: number, to: number]> {
  const count = bits.length * 8;
  const isSet = (bit: number): boolean => (((bits[bit >>> 3] as number) >>> (bit & 7)) & 1) === 1;
  for (let bit = 0; bit < count; ) {
    if ((bit & 7) === 0 && bits[bit >>> 3] === 0) bit += 8;
    else if (!isSet(bit)) bit++;
    else {
      const from = bit;
      while (bit < count && isSet(bit)) bit += (bit & 7) === 0 && bits[bit >>> 3] === 0xff ? 8 : 1;
      yield [from, bit];
    }
  }
}
