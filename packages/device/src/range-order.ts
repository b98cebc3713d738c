import { type Segment, SegmentList } from './segment-list.ts';
import type { Ticket } from './turn.ts';

/**
 * Lets requests that overlap begin in the order they came, unless both are reads. Each waits only for the last ones on its bytes, which wait for
 * those before: a thousand changes of one sector are a queue, not half a million pairs. Who waits, waits for earlier ones only, so
 * nobody waits for ever.
 */
export class RangeOrder {
  /** None is without a request; bytes in none are free. */
  readonly #segments = new SegmentList();
  #searches = 0;

  /** Segments in use. */
  get size(): number {
    return this.#segments.size;
  }

  /** Takes the bytes of a request. It begins at once, or when what it waits for is removed. */
  add(ticket: Ticket): void {
    this.#searches++;
    let segment = this.#segments.find(ticket.start);
    if (segment !== null && segment.start < ticket.start)
      segment = this.#split(segment, ticket.start);
    if (ticket.use === 'change') this.#change(ticket, segment);
    else this.#read(ticket, segment);
    if (ticket.waitsFor === 0) ticket.begin();
  }

  /** Frees the bytes of a request that is over; those that waited for it alone begin. */
  remove(ticket: Ticket): void {
    let segment = this.#segments.find(ticket.start);
    while (segment !== null && segment.start < ticket.end) {
      const next: Segment | null = segment.next[0] ?? null;
      if (segment.change === ticket) segment.change = null;
      if (segment.reads?.delete(ticket) && segment.reads.size === 0) segment.reads = null;
      if (segment.change === null && segment.reads === null) this.#segments.remove(segment);
      segment = next;
    }
    for (const next of ticket.behind) if (--next.waitsFor === 0) next.begin();
  }

  /** One segment for all of its bytes, in the place of those that begin with `first`. */
  #change(ticket: Ticket, first: Segment | null): void {
    const { start, end } = ticket;
    let own: Segment | null = null;
    for (let segment = first; segment !== null && segment.start < end; ) {
      if (segment.end > end) this.#split(segment, end);
      const next: Segment | null = segment.next[0] ?? null;
      this.#follow(ticket, segment);
      if (own === null) own = segment;
      else this.#segments.remove(segment);
      segment = next;
    }
    own ??= this.#segments.insert(start, end);
    own.start = start;
    own.end = end;
    own.change = ticket;
    own.reads = null;
  }

  /** Joins the segments that begin with `first`, and takes the free bytes between them. */
  #read(ticket: Ticket, first: Segment | null): void {
    let at = ticket.start;
    for (let segment = first; segment !== null && segment.start < ticket.end; ) {
      if (segment.end > ticket.end) this.#split(segment, ticket.end);
      this.#follow(ticket, segment);
      if (at < segment.start) this.#segments.insert(at, segment.start).reads = new Set([ticket]);
      segment.reads ??= new Set();
      segment.reads.add(ticket);
      at = segment.end;
      segment = segment.next[0] ?? null;
    }
    if (at < ticket.end) this.#segments.insert(at, ticket.end).reads = new Set([ticket]);
  }

  /** Cuts a segment at a byte inside it; returns the upper part. */
  #split(segment: Segment, at: number): Segment {
    const upper = this.#segments.insert(at, segment.end);
    segment.end = at;
    upper.change = segment.change;
    upper.reads = segment.reads === null ? null : new Set(segment.reads);
    return upper;
  }

  /** Notes whom `ticket` waits for in a segment, each once. */
  #follow(ticket: Ticket, { change, reads }: Segment): void {
    if (ticket.use === 'change' && reads !== null)
      for (const read of reads) this.#waitFor(ticket, read);
    else if (change !== null) this.#waitFor(ticket, change);
  }

  #waitFor(ticket: Ticket, earlier: Ticket): void {
    if (earlier.met === this.#searches) return;
    earlier.met = this.#searches;
    earlier.behind.push(ticket);
    ticket.waitsFor++;
  }
}
