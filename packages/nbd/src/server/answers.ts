import {
  type ChunkOf,
  type ChunkStyle,
  encodeDataHeader,
  encodeError,
  encodeHole,
  encodeNone,
  encodeSimpleReply,
  encodeStatus,
} from '../codec/reply.ts';
import type { Request } from '../codec/request.ts';
import { COMMAND, COMMAND_FLAG, type Errno, type StatusExtent, type Style } from '../protocol.ts';
import type { Hole } from './export.ts';

/** Longest run in a structured status: what 32 bits hold, cut at the largest minimum block size there is. */
const LONGEST_STRUCTURED_RUN = 2 ** 32 - 65_536;

/** The request failed. Whatever was agreed on, an error of a read may not be simple once there are chunks. */
export function answerError(style: Style, tag: Buffer, errno: Errno, reason: string): Buffer[] {
  if (style === 'simple') return [encodeSimpleReply(tag, errno)];
  return [encodeError({ style, tag, done: true }, errno, reason)];
}

/** The request is done, and there is nothing to say about it. */
export function answerDone(style: Style, { command, tag }: Request): Buffer[] {
  if (style === 'extended' || (style === 'structured' && command === COMMAND.read))
    return [encodeNone({ style, tag })];
  return [encodeSimpleReply(tag, null)];
}

/**
 * What was read. Holes become chunks without bytes where chunks are agreed on and the client takes several.
 * @throws RangeError when the export's holes are not ordered, apart, and inside of the range
 */
export function answerRead(
  style: Style,
  request: Request,
  data: Buffer,
  holes: readonly Hole[],
): Uint8Array[] {
  assertHoles(request, holes);
  const { offset, flags, tag } = request;
  if (style === 'simple' || (flags & COMMAND_FLAG.df) !== 0) {
    for (const hole of holes)
      data.fill(0, hole.offset - offset, hole.offset - offset + hole.length);
    if (style === 'simple') return [encodeSimpleReply(tag, null), data];
    return [encodeDataHeader({ style, tag, done: true }, offset, data.length), data];
  }
  return chunks(style, request, data, holes);
}

function chunks(
  style: ChunkStyle,
  { offset, tag }: Request,
  data: Buffer,
  holes: readonly Hole[],
): Uint8Array[] {
  const end = offset + data.length;
  const pieces: Uint8Array[] = [];
  const of = (last: number): ChunkOf => ({ style, tag, done: last === end });
  let at = offset;
  const dataUntil = (until: number) => {
    if (until === at) return;
    pieces.push(encodeDataHeader(of(until), at, until - at));
    pieces.push(data.subarray(at - offset, until - offset));
  };
  for (const hole of holes) {
    dataUntil(hole.offset);
    at = hole.offset + hole.length;
    pieces.push(encodeHole(of(at), hole.offset, hole.length));
  }
  dataUntil(end);
  return pieces;
}

function assertHoles({ offset, length }: Request, holes: readonly Hole[]): void {
  let at = offset;
  for (const hole of holes) {
    if (!(hole.offset >= at && hole.length > 0 && hole.offset + hole.length <= offset + length))
      throw new RangeError('the export reports holes that overlap or lie outside of the read');
    at = hole.offset + hole.length;
  }
}

/** Statuses of one context, as the export gave them. */
export interface ContextStatus {
  readonly id: number;
  readonly extents: readonly StatusExtent[];
}

/**
 * One chunk for each context.
 * @param length bytes that were asked about
 * @param size of the export
 * @throws RangeError when the export gave none, or an empty one
 */
export function answerStatus(
  style: ChunkStyle,
  { offset, flags, tag }: Request,
  length: number,
  size: number,
  contexts: readonly ContextStatus[],
): Buffer[] {
  const one = (flags & COMMAND_FLAG.reqOne) !== 0;
  return contexts.map(({ id, extents }, index) => {
    const done = index === contexts.length - 1;
    const bound = {
      asked: length,
      end: one ? length : size - offset,
      run: style === 'structured' ? LONGEST_STRUCTURED_RUN : Number.POSITIVE_INFINITY,
      count: one ? 1 : Number.POSITIVE_INFINITY,
    };
    return encodeStatus({ style, tag, done }, id, tidy(extents, bound));
  });
}

interface Bound {
  /** Only the last extent may reach beyond it. */
  readonly asked: number;
  /** No extent reaches beyond it. */
  readonly end: number;
  /** Longest extent. */
  readonly run: number;
  readonly count: number;
}

/** Neighbours of one status become one extent; what goes beyond a bound is cut. Always at least one. */
function tidy(extents: readonly StatusExtent[], bound: Bound): StatusExtent[] {
  const merged: { length: number; status: number }[] = [];
  let total = 0;
  for (const { length, status } of extents) {
    if (!(length > 0)) throw new RangeError('the export reports an empty extent');
    // the sum of all but the last stays below what was asked for
    const last = merged.at(-1);
    if (total >= bound.asked && last?.status !== status) break;
    const kept = Math.min(length, bound.end - total);
    if (kept <= 0) break;
    total += kept;
    if (last?.status === status) last.length += kept;
    else merged.push({ length: kept, status });
  }
  const cut = merged.slice(0, bound.count);
  // a run that was cut short ends the list: what follows it is not told
  const short = cut.findIndex(({ length }) => length > bound.run);
  const told = short < 0 ? cut : cut.slice(0, short + 1);
  const tail = told.at(-1);
  if (tail === undefined) throw new RangeError('the export reports no status');
  tail.length = Math.min(tail.length, bound.run);
  return told;
}
