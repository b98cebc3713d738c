/** Sizes of durations are told apart by powers of two of a microsecond. */
const BUCKETS = 24;
const FLAGS_AT = 0;
const TAKEN_AT = 1;
const STARVED_AT = 2;
const WORDS = 4;
/** Of each bucket: requests, bytes, milliseconds in all. */
const FIELDS = 3;

/** What the thread is told while it does something else. */
export const FLAG = {
  /** Serves nothing by itself any more: all requests are passed on. */
  passAll: 1,
  /** Ends at once, whatever is unsent. */
  kill: 2,
} as const;

/** Hears of reads that took about the same time: how many, bytes and milliseconds of all of them. */
export type Tally = (count: number, bytes: number, milliseconds: number) => void;

/** A little memory that the server and the thread of one connection share. */
export class Control {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #tally: Float64Array;
  /** What was told of the tally already; the reader's alone. */
  readonly #told = new Float64Array(BUCKETS * FIELDS);

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4 * WORDS + 8 * BUCKETS * FIELDS)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS);
    this.#tally = new Float64Array(buffer, 4 * WORDS);
  }

  raise(flag: number): void {
    Atomics.or(this.#words, FLAGS_AT, flag);
  }

  has(flag: number): boolean {
    return (Atomics.load(this.#words, FLAGS_AT) & flag) !== 0;
  }

  /** Of the bytes that were passed on, so many have been taken: modulo 2^32. Returns whether the thread waits to hear that. */
  took(bytes: number): boolean {
    Atomics.store(this.#words, TAKEN_AT, bytes | 0);
    return Atomics.exchange(this.#words, STARVED_AT, 0) === 1;
  }

  /** Bytes of `passed` that were not taken yet. */
  untaken(passed: number): number {
    return ((passed | 0) - Atomics.load(this.#words, TAKEN_AT)) >>> 0;
  }

  /** The thread is going to wait until more is taken. To be followed by a look at `untaken`. */
  starve(): void {
    Atomics.store(this.#words, STARVED_AT, 1);
  }

  /** Notes reads that took so long together. */
  count(requests: number, bytes: number, milliseconds: number): void {
    const each = Math.floor((milliseconds / requests) * 1000);
    const at = FIELDS * Math.min(BUCKETS - 1, 32 - Math.clz32(each));
    const tally = this.#tally;
    tally[at] = (tally[at] as number) + requests;
    tally[at + 1] = (tally[at + 1] as number) + bytes;
    tally[at + 2] = (tally[at + 2] as number) + milliseconds;
  }

  /** Tells what was noted since it was asked last. */
  settle(tell: Tally): void {
    for (let at = 0; at < BUCKETS * FIELDS; at += FIELDS) {
      const count = this.#since(at);
      if (count > 0) tell(count, this.#since(at + 1), this.#since(at + 2));
    }
  }

  #since(at: number): number {
    const now = this.#tally[at] as number;
    const since = now - (this.#told[at] as number);
    this.#told[at] = now;
    return since;
  }
}
