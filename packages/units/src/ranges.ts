import {
  type AnyOffset,
  type ByteLength,
  byteLength,
  type GuestOffset,
  type HostOffset,
} from './offsets.ts';

/** `length` bytes from `offset`. */
export interface ByteRange<O extends AnyOffset> {
  readonly offset: O;
  readonly length: ByteLength;
}
/** A range of the virtual disk. */
export type GuestRange = ByteRange<GuestOffset>;
/** A range of a file. */
export type HostRange = ByteRange<HostOffset>;

/** First byte after the range. */
export function rangeEnd<O extends AnyOffset>(range: ByteRange<O>): O {
  return (range.offset + range.length) as O;
}

/** The range `[start, end)`; empty when `end <= start`. */
export function rangeBetween<O extends AnyOffset>(start: O, end: number): ByteRange<O> {
  return { offset: start, length: byteLength(Math.max(0, end - start)) };
}

/** What two ranges have in common; `null` when nothing. */
export function intersect<O extends AnyOffset>(
  a: ByteRange<O>,
  b: ByteRange<O>,
): ByteRange<O> | null {
  const start = Math.max(a.offset, b.offset) as O;
  const end = Math.min(a.offset + a.length, b.offset + b.length);
  return end > start ? rangeBetween(start, end) : null;
}

/** `range` cut into pieces that end on multiples of `piece` bytes, in order. */
export function* splitRange<O extends AnyOffset>(
  range: ByteRange<O>,
  piece: number,
): Generator<ByteRange<O>, void, undefined> {
  const end = range.offset + range.length;
  for (let at = range.offset as number; at < end; ) {
    const next = Math.min(end, at - (at % piece) + piece);
    yield { offset: at as O, length: (next - at) as ByteLength };
    at = next;
  }
}
