import type { Ticket } from './turn.ts';

const MOST_LEVELS = 12;

/** Bytes on which the same requests are at work: a change, and the reads that came after it. */
export class Segment {
  start: number;
  end: number;
  /** The last change that came; null: it is over. All that came before it are over when it is. */
  change: Ticket | null = null;
  /** Reads that came since then; null: none. */
  reads: Set<Ticket> | null = null;
  /** The following segment that is on this level, too; level 0 has all. */
  readonly next: (Segment | null)[];

  constructor(start: number, end: number, levels: number) {
    this.start = start;
    this.end = end;
    this.next = Array<Segment | null>(levels).fill(null);
  }
}

/** Segments in order, apart from each other: a skip list, since with thousands of them moving an array costs more than all else. */
export class SegmentList {
  readonly #head = new Segment(-1, -1, MOST_LEVELS);
  #size = 0;
  #random = 1;

  get size(): number {
    return this.#size;
  }

  /** The first segment that ends after byte `at`. */
  find(at: number): Segment | null {
    let node = this.#head;
    for (let level = MOST_LEVELS - 1; level >= 0; level--)
      for (let next = node.next[level]; next && next.end <= at; next = node.next[level])
        node = next;
    return node.next[0] ?? null;
  }

  /** A new segment; its bytes are in no other. */
  insert(start: number, end: number): Segment {
    const segment = new Segment(start, end, this.#levels());
    let node = this.#head;
    for (let level = MOST_LEVELS - 1; level >= 0; level--) {
      for (let next = node.next[level]; next && next.start < start; next = node.next[level])
        node = next;
      if (level >= segment.next.length) continue;
      segment.next[level] = node.next[level] ?? null;
      node.next[level] = segment;
    }
    this.#size++;
    return segment;
  }

  remove(segment: Segment): void {
    let node = this.#head;
    for (let level = MOST_LEVELS - 1; level >= 0; level--) {
      for (let next = node.next[level]; next && next.start < segment.start; next = node.next[level])
        node = next;
      if (node.next[level] === segment) node.next[level] = segment.next[level] ?? null;
    }
    this.#size--;
  }

  /** One level for three of four segments, two for three of sixteen, ... (xorshift; the same at every run) */
  #levels(): number {
    this.#random ^= this.#random << 13;
    this.#random ^= this.#random >>> 17;
    this.#random ^= this.#random << 5;
    return Math.min(MOST_LEVELS, 1 + (Math.clz32(this.#random) >> 1));
  }
}
