import { isPowerOfTwo } from './arithmetic.ts';

/*
 * A table in memory that threads share: where in which open file the bytes of a disk lie. One thread, the keeper, writes it; readers look
 * places up and read the files by themselves, without asking.
 *
 * 32-bit words: the version, the unit, a counter for each reader; then for each slot the window it holds; then the entries of the slots.
 * A window is WINDOW units of the disk that follow one another; window w can be in slot w % SLOTS alone. So memory has a bound, whatever
 * the size of the disk, and pages of slots that nobody used are never touched.
 *
 * An entry is two words: low bits of the place in sectors; its high bits (12) and the descriptor (20). A second word of 0: not known.
 */

/** Units of one window. */
const WINDOW = 1024;
const SLOTS = 2048;
/** Readers at once. */
const READERS = 32;
const SECTOR = 512;
const SHARE = 2 ** 32;

const VERSION_AT = 0;
const UNIT_AT = 1;
const READERS_AT = 16;
const TAGS_AT = READERS_AT + READERS;
const ENTRIES_AT = TAGS_AT + SLOTS;
const WORDS = ENTRIES_AT + SLOTS * WINDOW * 2;

/** In the place of a descriptor: zeros, which lie nowhere. */
const ZEROS = 0xf_ffff;

function entryOf(granule: number): number {
  return ENTRIES_AT + 2 * (granule % (SLOTS * WINDOW));
}

function windowOf(granule: number): number {
  return Math.floor(granule / WINDOW);
}

/**
 * The keeper's side. Before anything happens to bytes that readers may be looking at (their place in a file given to others, the file closed)
 * they are forgotten, and `idle` awaited: who comes later does not find them, and who found them is gone.
 */
export class SharedMap {
  readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(4 * WORDS);
  readonly #words = new Int32Array(this.buffer);
  readonly #readers: Set<number> = new Set();

  /** Bytes of the disk that one entry stands for. 0: `use` was never called. */
  get unit(): number {
    return this.#words[UNIT_AT] as number;
  }

  /** Bytes of one window: what is learnt at once. */
  get windowBytes(): number {
    return this.unit * WINDOW;
  }

  /** Sets the unit, a power of two from 512. Everything was forgotten, and nobody is inside. */
  use(unit: number): void {
    if (!isPowerOfTwo(unit) || unit < SECTOR) throw new RangeError(`a unit of ${unit} bytes`);
    this.#words[UNIT_AT] = unit;
  }

  /** A place for one more reader; null: there is none. */
  addReader(): number | null {
    for (let reader = 0; reader < READERS; reader++)
      if (!this.#readers.has(reader)) {
        this.#readers.add(reader);
        return reader;
      }
    return null;
  }

  /** Whether anybody looks anything up. */
  get isRead(): boolean {
    return this.#readers.size > 0;
  }

  /** The thread of a reader is gone, or looks nothing up any more. */
  removeReader(reader: number): void {
    if (!this.#readers.delete(reader)) return;
    // one that died inside left nothing behind that it looks at
    if (this.#isInside(reader)) Atomics.add(this.#words, READERS_AT + reader, 1);
  }

  /** Resolves when each reader that is inside now has left; null: none is. */
  idle(): Promise<void> | null {
    const inside = [...this.#readers].filter((reader) => this.#isInside(reader));
    if (inside.length === 0) return null;
    return Promise.all(inside.map((reader) => this.#left(reader))).then(() => undefined);
  }

  /** Readers that come from now on find none of [start, end). To be followed by `idle`. */
  forget(start: number, end: number): void {
    if (this.unit === 0 || end <= start) return;
    const [first, last] = [Math.floor(start / this.unit), Math.ceil(end / this.unit)];
    for (const window of this.#held(windowOf(first), windowOf(last - 1))) {
      const stop = Math.min(last, (window + 1) * WINDOW);
      for (let granule = Math.max(first, window * WINDOW); granule < stop; granule++)
        this.#words[entryOf(granule) + 1] = 0;
    }
    this.#publish();
  }

  /** First bytes of the windows that have a slot and touch [start, end). Costs no more than there are slots, however long that is. */
  *windowsIn(start: number, end: number): Generator<number, void, undefined> {
    if (this.unit === 0 || end <= start) return;
    const { windowBytes } = this;
    for (const window of this.#held(
      Math.floor(start / windowBytes),
      Math.ceil(end / windowBytes) - 1,
    ))
      yield window * windowBytes;
  }

  /** Windows from `first` to `last` that have a slot. */
  *#held(first: number, last: number): Generator<number, void, undefined> {
    const count = Math.min(SLOTS, last - first + 1);
    for (let at = 0; at < count; at++) {
      const window = (this.#words[TAGS_AT + ((first + at) % SLOTS)] as number) - 1;
      if (window >= first && window <= last) yield window;
    }
  }

  /** Readers that come from now on find nothing. To be followed by `idle`. */
  forgetAll(): void {
    this.#words.fill(0, TAGS_AT, ENTRIES_AT);
    this.#publish();
  }

  /** Whether the window of a byte has a slot. */
  has(offset: number): boolean {
    const window = windowOf(Math.floor(offset / this.unit));
    return this.#words[TAGS_AT + (window % SLOTS)] === window + 1;
  }

  /** Whether the window of a byte can have a slot that none has. */
  hasRoom(offset: number): boolean {
    const window = windowOf(Math.floor(offset / this.unit));
    return this.#words[TAGS_AT + (window % SLOTS)] === 0;
  }

  /** Gives the window of a byte a slot, empty. Resolves once nobody looks at what was there; one call at a time. */
  async claim(offset: number): Promise<void> {
    const window = windowOf(Math.floor(offset / this.unit));
    const tag = TAGS_AT + (window % SLOTS);
    this.#words[tag] = 0;
    this.#publish();
    // also who is inside since before the unit was another
    await this.idle();
    const first = entryOf(window * WINDOW);
    this.#words.fill(0, first, first + 2 * WINDOW);
    Atomics.store(this.#words, tag, window + 1);
  }

  /**
   * Tells readers where whole units of the disk lie that were not known: unit-aligned [start, end), in a window that has a slot, from byte
   * `host` of the file. `descriptor` null: they are zeros. What cannot be told stays unknown.
   */
  put(start: number, end: number, descriptor: number | null, host: number): void {
    const { unit } = this;
    const file = descriptor ?? ZEROS;
    if (host % SECTOR !== 0 || file < 1 || file > ZEROS) return;
    const last = Math.ceil(end / unit);
    for (let granule = start / unit, at = host; granule < last; granule++, at += unit) {
      const entry = entryOf(granule);
      const sector = descriptor === null ? 0 : at / SECTOR;
      this.#words[entry] = sector | 0;
      // the second word last: who sees it sees the first
      Atomics.store(this.#words, entry + 1, (file << 12) | Math.floor(sector / SHARE));
    }
  }

  /** What was written before is seen by whoever enters after. */
  #publish(): void {
    Atomics.add(this.#words, VERSION_AT, 1);
  }

  #isInside(reader: number): boolean {
    return (Atomics.load(this.#words, READERS_AT + reader) & 1) === 1;
  }

  async #left(reader: number): Promise<void> {
    const seen = Atomics.load(this.#words, READERS_AT + reader);
    if ((seen & 1) === 0) return;
    for (let turns = 0; Atomics.load(this.#words, READERS_AT + reader) === seen; turns++)
      await new Promise<void>((resolve) => {
        // it is gone in microseconds, unless a disk has to be waited for
        if (turns < 20) setImmediate(resolve);
        else setTimeout(resolve, 1);
      });
  }
}

/** Where threads that read a disk by themselves find its bytes. */
export interface DirectReads {
  readonly map: SharedMap;
  /** Bytes were asked for that the map does not know. Learns what lies around them, soon, where that can be told. */
  learn(offset: number, length: number): void;
}

/** A reader's side, in any thread. What was found may be read until `leave`; who is inside holds up the keeper, so it is left soon. */
export class SharedMapReader {
  readonly #words: Int32Array;
  readonly #counter: number;
  /** The run that `find` found: of which file; null: zeros. */
  descriptor: number | null = null;
  /** Byte of the file that it begins at. */
  host = 0;
  /** Bytes. */
  length = 0;

  /** @param reader place that the keeper gave */
  constructor(buffer: SharedArrayBuffer, reader: number) {
    this.#words = new Int32Array(buffer);
    this.#counter = READERS_AT + reader;
  }

  enter(): void {
    Atomics.add(this.#words, this.#counter, 1);
    // sees all that was forgotten before the keeper could see it inside
    Atomics.load(this.#words, VERSION_AT);
  }

  leave(): void {
    Atomics.add(this.#words, this.#counter, 1);
  }

  /** Looks up where bytes from `offset` on lie, as far as they follow one another, up to `end`. False: it is not known. */
  find(offset: number, end: number): boolean {
    const words = this.#words;
    const unit = words[UNIT_AT] as number;
    if (unit === 0) return false;
    const first = Math.floor(offset / unit);
    const second = this.#second(first);
    const file = second >>> 12;
    if (file === 0) return false;
    const start = this.#place(first, second);
    const inside = offset - first * unit;
    let stop = (first + 1) * unit;
    for (let granule = first + 1; stop < end; granule++, stop += unit) {
      const next = this.#second(granule);
      if (next >>> 12 !== file) break;
      if (file !== ZEROS && this.#place(granule, next) !== start + (granule - first) * unit) break;
    }
    this.descriptor = file === ZEROS ? null : file;
    this.host = start + inside;
    this.length = Math.min(stop, end) - offset;
    return true;
  }

  #second(granule: number): number {
    const window = windowOf(granule);
    if (Atomics.load(this.#words, TAGS_AT + (window % SLOTS)) !== window + 1) return 0;
    return Atomics.load(this.#words, entryOf(granule) + 1);
  }

  /** By the second word as it was loaded once: the keeper may forget it meanwhile. */
  #place(granule: number, second: number): number {
    const low = (this.#words[entryOf(granule)] as number) >>> 0;
    return ((second & 0xfff) * SHARE + low) * SECTOR;
  }
}
