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
  bytes.writeUInt32BE(MAGIC.simpleReply, 0);
  bytes.writeUInt32BE(error === null ? 0 : ERRNO[error], 4);
  tag.copy(bytes, 8, 0, 8);
  return bytes;
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
  const extended = of.style === 'extended';
  bytes.writeUInt32BE(extended ? MAGIC.extendedReply : MAGIC.structuredReply, 0);
  bytes.writeUInt16BE(of.done ? CHUNK_FLAG_DONE : 0, 4);
  bytes.writeUInt16BE(type, 6);
  of.tag.copy(bytes, 8, 0, extended ? 16 : 8);
  if (extended) writeU64(bytes, 24, payload);
  else bytes.writeUInt32BE(payload, 16);
  return [bytes, header];
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
