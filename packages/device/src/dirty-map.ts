import {
  type ByteLength,
  ceilDivide,
  type GuestOffset,
  type GuestRange,
  isPowerOfTwo,
  rangeEnd,
  UnitsError,
} from '@downfold/units';

/** Chunks of one page, and the words that hold their bits. */
const PAGE_CHUNKS = 32_768;
const PAGE_WORDS = PAGE_CHUNKS / 32;

/** Bits of neighbouring chunks. `null` in place of the words: all of them are set. */
interface Page {
  words: Uint32Array | null;
  /** Bits set. */
  count: number;
}

/**
 * Which chunks of a disk are dirty: a bit each, in pages of 4 KiB that exist only where both kinds lie side by side; terabytes that are all clean
 * or all dirty cost an entry a page.
 */
export class DirtyMap {
  /** Bytes of a chunk. */
  readonly granularity: number;
  #size: number;
  readonly #pages: Map<number, Page> = new Map();
  #count = 0;

  /** @param granularity bytes of a chunk, a power of two. @throws UnitsError when it is none */
  constructor(size: ByteLength, granularity: number) {
    if (!isPowerOfTwo(granularity))
      throw new UnitsError('UNITS_RANGE', `granularity ${granularity} is no power of two`, {
        granularity,
      });
    this.granularity = granularity;
    this.#size = size;
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#size;
  }

  /** Chunks that are dirty. */
  get count(): number {
    return this.#count;
  }

  /** The disk is larger from now on; the new chunks are clean. */
  grow(size: ByteLength): void {
    this.#size = Math.max(this.#size, size);
  }

  /** Every chunk that `range` touches is dirty. @throws UnitsError past the end of the disk */
  set(range: GuestRange): void {
    this.#assertInside(range);
    if (range.length === 0) return;
    const first = Math.floor(range.offset / this.granularity);
    this.#change(first, ceilDivide(rangeEnd(range), this.granularity), true);
  }

  /** Every chunk that lies wholly in `range` is clean; the last one may be cut by the end of the disk. @throws UnitsError past it */
  clear(range: GuestRange): void {
    this.#assertInside(range);
    const end = rangeEnd(range);
    const after =
      end === this.#size ? ceilDivide(end, this.granularity) : Math.floor(end / this.granularity);
    this.#change(ceilDivide(range.offset, this.granularity), after, false);
  }

  /** The first dirty run that ends after `from`, of at most `most` bytes (at least one chunk): whole chunks, cut by the end of the disk. */
  next(from: GuestOffset, most: number = Number.POSITIVE_INFINITY): GuestRange | null {
    if (this.#count === 0 || from >= this.#size) return null;
    const chunks = ceilDivide(this.#size, this.granularity);
    const first = this.#find(Math.floor(from / this.granularity), chunks, true);
    if (first === chunks) return null;
    const limit = Math.max(1, Math.floor(most / this.granularity));
    const after = this.#find(first, Math.min(chunks, first + limit), false);
    const offset = first * this.granularity;
    const end = Math.min(after * this.granularity, this.#size);
    return { offset: offset as GuestOffset, length: (end - offset) as ByteLength };
  }

  #change(first: number, after: number, dirty: boolean): void {
    for (let at = first; at < after; ) {
      const index = Math.floor(at / PAGE_CHUNKS);
      const start = index * PAGE_CHUNKS;
      const stop = Math.min(after, start + PAGE_CHUNKS);
      this.#changePage(index, at - start, stop - start, dirty);
      at = stop;
    }
  }

  /** Changes chunks [from, to) of one page. */
  #changePage(index: number, from: number, to: number, dirty: boolean): void {
    const page = this.#pages.get(index) ?? { words: new Uint32Array(0), count: 0 };
    const before = page.count;
    if (before === (dirty ? PAGE_CHUNKS : 0)) return;
    if (to - from === PAGE_CHUNKS) page.count = dirty ? PAGE_CHUNKS : 0;
    else page.count += changeBits(wordsOf(page), from, to, dirty);
    if (page.count === PAGE_CHUNKS) page.words = null;
    if (page.count === 0) this.#pages.delete(index);
    else this.#pages.set(index, page);
    this.#count += page.count - before;
  }

  /** The first chunk in [from, end) that is dirty, or clean; `end` when none is. */
  #find(from: number, end: number, dirty: boolean): number {
    for (let at = from; at < end; ) {
      const index = Math.floor(at / PAGE_CHUNKS);
      const start = index * PAGE_CHUNKS;
      const page = this.#pages.get(index);
      if (page === undefined || page.words === null) {
        if ((page !== undefined) === dirty) return at;
        at = start + PAGE_CHUNKS;
        continue;
      }
      const found = start + findBit(page.words, at - start, dirty);
      if (found < start + PAGE_CHUNKS) return Math.min(found, end);
      at = found;
    }
    return end;
  }

  #assertInside(range: GuestRange): void {
    if (rangeEnd(range) > this.#size)
      throw new UnitsError(
        'UNITS_RANGE',
        `${range.length} bytes at ${range.offset} reach past the ${this.#size} of the disk`,
        { offset: range.offset, length: range.length },
      );
  }
}

/** The words of a page, to be changed. */
function wordsOf(page: Page): Uint32Array {
  if (page.words === null) page.words = new Uint32Array(PAGE_WORDS).fill(0xffff_ffff);
  else if (page.words.length === 0) page.words = new Uint32Array(PAGE_WORDS);
  return page.words;
}

/** Sets or clears bits [from, to), a word at a time; returns by how many more are set now. */
function changeBits(words: Uint32Array, from: number, to: number, dirty: boolean): number {
  let more = 0;
  for (let at = from; at < to; ) {
    const word = at >>> 5;
    const stop = Math.min(to, (word + 1) * 32);
    const bits = stop - at === 32 ? 0xffff_ffff : ((1 << (stop - at)) - 1) << (at & 31);
    const before = words[word] as number;
    const now = (dirty ? before | bits : before & ~bits) >>> 0;
    words[word] = now;
    more += bitCount(now) - bitCount(before);
    at = stop;
  }
  return more;
}

/** The first bit from `from` on that is set, or clear; the number of bits when none is. */
function findBit(words: Uint32Array, from: number, dirty: boolean): number {
  for (let at = from; at < words.length * 32; ) {
    const word = words[at >>> 5] as number;
    const wanted = ((dirty ? word : ~word) >>> (at & 31)) >>> 0;
    if (wanted !== 0) return at + (31 - Math.clz32(wanted & -wanted));
    at = ((at >>> 5) + 1) * 32;
  }
  return words.length * 32;
}

function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
