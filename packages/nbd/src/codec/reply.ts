import {
  CHUNK,
  CHUNK_FLAG_DONE,
  ERRNO,
  type Errno,
  MAGIC,
  type StatusExtent,
  type Style,
} from '../protocol.ts';
import { encodeMessage } from './strings.ts';
import { writeU64 } from './words.ts';

/** Chunks come with 20-byte or with 32-byte headers. */
export type ChunkStyle = Exclude<Style, 'simple'>;

/** Bytes of the header of a chunk. */
export const CHUNK_BYTES: Readonly<Record<ChunkStyle, number>> = { structured: 20, extended: 32 };
/** Bytes of a simple reply; the data of a read follows them. */
export const SIMPLE_BYTES = 16;

/** A simple reply. @param tag of the request @param error `null` for success */
export function encodeSimpleReply(tag: Buffer, error: Errno | null): Buffer {
  const bytes = Buffer.allocUnsafe(SIMPLE_BYTES);
  putSimpleReply(bytes, 0, tag, 0, error === null ? 0 : ERRNO[error]);
  return bytes;
}

function putSimpleReply(to: Buffer, at: number, tag: Buffer, tagAt: number, error: number): void {
  to.writeUInt32BE(MAGIC.simpleReply, at);
  to.writeUInt32BE(error, at + 4);
  tag.copy(to, at + 8, tagAt, tagAt + 8);
}

/** Bytes of what precedes the data of a read that is answered in one piece. */
export const DATA_HEADER_BYTES: Readonly<Record<Style, number>> = {
  simple: SIMPLE_BYTES,
  structured: CHUNK_BYTES.structured + 8,
  extended: CHUNK_BYTES.extended + 8,
};

/** A read that is answered in one piece, without the data: `length` bytes of the export from `offset`. */
export interface WholeRead {
  readonly style: Style;
  readonly offset: number;
  readonly length: number;
}

/** Writes what precedes the data of a read to byte `at`. @param tagAt where the tag of the request begins in `tag` */
export function putDataHeader(
  to: Buffer,
  at: number,
  { style, offset, length }: WholeRead,
  tag: Buffer,
  tagAt: number,
): void {
  if (style === 'simple') putSimpleReply(to, at, tag, tagAt, 0);
  else {
    putChunk(to, at, { style, done: true, type: CHUNK.data, payload: 8 + length }, tag, tagAt);
    writeU64(to, at + CHUNK_BYTES[style], offset);
  }
}

/** Which reply a chunk belongs to, and whether it is its last. */
export interface ChunkOf {
  readonly style: ChunkStyle;
  /** Tag of the request. */
  readonly tag: Buffer;
  readonly done: boolean;
}

/** Header of a chunk, and room for `inline` bytes of its payload, which has `payload` bytes in all. */
function chunk(of: ChunkOf, type: number, inline: number, payload: number): [Buffer, number] {
  const header = CHUNK_BYTES[of.style];
  const bytes = Buffer.allocUnsafe(header + inline);
  putChunk(bytes, 0, { style: of.style, done: of.done, type, payload }, of.tag, 0);
  return [bytes, header];
}

/** What the header of a chunk says, but for the tag. */
interface ChunkFacts {
  readonly style: ChunkStyle;
  readonly done: boolean;
  readonly type: number;
  readonly payload: number;
}

function putChunk(
  to: Buffer,
  at: number,
  { style, done, type, payload }: ChunkFacts,
  tag: Buffer,
  tagAt: number,
): void {
  const extended = style === 'extended';
  to.writeUInt32BE(extended ? MAGIC.extendedReply : MAGIC.structuredReply, at);
  to.writeUInt16BE(done ? CHUNK_FLAG_DONE : 0, at + 4);
  to.writeUInt16BE(type, at + 6);
  tag.copy(to, at + 8, tagAt, tagAt + (extended ? 16 : 8));
  if (extended) writeU64(to, at + 24, payload);
  else to.writeUInt32BE(payload, at + 16);
}

/** The chunk that says that nothing more comes. */
export function encodeNone(of: Omit<ChunkOf, 'done'>): Buffer {
  return chunk({ ...of, done: true }, CHUNK.none, 0, 0)[0];
}

/** The start of a chunk of data: `length` bytes of the export from `offset` follow it as they are. */
export function encodeDataHeader(of: ChunkOf, offset: number, length: number): Buffer {
  const [bytes, at] = chunk(of, CHUNK.data, 8, 8 + length);
  writeU64(bytes, at, offset);
  return bytes;
}

/** `length` bytes from `offset` are zeros. @param length 1 to 2^32-1 */
export function encodeHole(of: ChunkOf, offset: number, length: number): Buffer {
  const [bytes, at] = chunk(of, CHUNK.hole, 12, 12);
  writeU64(bytes, at, offset);
  bytes.writeUInt32BE(length, at + 8);
  return bytes;
}

/** Statuses of consecutive runs from the offset of the request. @param extents not empty; structured chunks hold lengths up to 2^32-1 */
export function encodeStatus(
  of: ChunkOf,
  context: number,
  extents: readonly StatusExtent[],
): Buffer {
  if (of.style === 'structured') {
    const size = 4 + 8 * extents.length;
    const [bytes, at] = chunk(of, CHUNK.blockStatus, size, size);
    bytes.writeUInt32BE(context, at);
    extents.forEach(({ length, status }, index) => {
      bytes.writeUInt32BE(length, at + 4 + 8 * index);
      bytes.writeUInt32BE(status, at + 8 + 8 * index);
    });
    return bytes;
  }
  const size = 8 + 16 * extents.length;
  const [bytes, at] = chunk(of, CHUNK.blockStatusExtended, size, size);
  bytes.writeUInt32BE(context, at);
  bytes.writeUInt32BE(extents.length, at + 4);
  extents.forEach(({ length, status }, index) => {
    writeU64(bytes, at + 8 + 16 * index, length);
    writeU64(bytes, at + 16 + 16 * index, status);
  });
  return bytes;
}

/** The request failed. @param message for people; cut at 4096 bytes */
export function encodeError(of: ChunkOf, error: Errno, message: string): Buffer {
  const text = encodeMessage(message);
  const size = 6 + text.length;
  const [bytes, at] = chunk(of, CHUNK.error, size, size);
  bytes.writeUInt32BE(ERRNO[error], at);
  bytes.writeUInt16BE(text.length, at + 4);
  text.copy(bytes, at + 6);
  return bytes;
}
