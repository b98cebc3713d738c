import { NbdError, protocolError } from '../errors.ts';
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  MAGIC,
  MAX_PAYLOAD,
  MAX_STATUS_EXTENTS,
  MAX_STRING,
  type StatusExtent,
  type Style,
} from '../protocol.ts';
import type { ByteQueue } from './byte-queue.ts';
import { CHUNK_BYTES, SIMPLE_BYTES } from './reply.ts';
import { decodeString } from './strings.ts';
import { readU64 } from './words.ts';

/**
 * What a `ReplyDecoder` tells, in the order of the bytes. Each member may throw: then the decoder stops for good. Numbers above
 * 2^53-1 come as `Infinity`.
 */
export interface ReplySink {
  /** A chunk starts. @param offset the offset of the request, that extended headers repeat; `null` for other headers */
  chunk(cookie: number, offset: number | null): void;
  /** A simple reply. Returns the bytes to fill with the data that follows, `null` when none does. */
  simple(cookie: number, error: number): Uint8Array | null;
  /** Data of a read follows. Returns the `length` bytes to fill with it. */
  data(cookie: number, offset: number, length: number): Uint8Array;
  hole(cookie: number, offset: number, length: number): void;
  status(cookie: number, context: number, extents: readonly StatusExtent[]): void;
  /** @param offset where it failed, when the server says so */
  failure(cookie: number, error: number, message: string, offset: number | null): void;
  /** The reply is complete, and its data is where it was to go. */
  done(cookie: number): void;
}

interface Chunk {
  readonly cookie: number;
  readonly type: number;
  readonly length: number;
  readonly done: boolean;
}

interface Filling {
  readonly cookie: number;
  readonly target: Uint8Array;
  readonly done: boolean;
  filled: number;
}

/** Takes replies from a queue and tells a sink. Data goes where the sink wants it, as it comes; the rest is small or refused. */
export class ReplyDecoder {
  readonly #style: Style;
  readonly #sink: ReplySink;
  #chunk: Chunk | null = null;
  #filling: Filling | null = null;

  constructor(style: Style, sink: ReplySink) {
    this.#style = style;
    this.#sink = sink;
  }

  /** Takes all there is. @throws NbdError `NBD_PROTOCOL` for garbage, `NBD_LIMIT` for chunks that are too large, and what the sink throws */
  run(queue: ByteQueue): void {
    while (this.#filling ? this.#fill(queue, this.#filling) : this.#step(queue));
  }

  #fill(queue: ByteQueue, filling: Filling): boolean {
    filling.filled += queue.copyInto(filling.target.subarray(filling.filled));
    if (filling.filled < filling.target.length) return false;
    this.#filling = null;
    if (filling.done) this.#sink.done(filling.cookie);
    return true;
  }

  /** One header or one payload; whether there was one. */
  #step(queue: ByteQueue): boolean {
    if (this.#chunk !== null) return this.#payload(queue, this.#chunk);
    const magic = queue.peekU32();
    if (magic === null) return false;
    if (magic === MAGIC.simpleReply && this.#style !== 'extended') return this.#simple(queue);
    if (magic === MAGIC.structuredReply && this.#style === 'structured')
      return this.#header(queue, CHUNK_BYTES.structured);
    if (magic === MAGIC.extendedReply && this.#style === 'extended')
      return this.#header(queue, CHUNK_BYTES.extended);
    throw protocolError('a reply does not start with the magic that was agreed on');
  }

  #simple(queue: ByteQueue): boolean {
    const bytes = queue.take(SIMPLE_BYTES);
    if (bytes === null) return false;
    const cookie = readU64(bytes, 8);
    const target = this.#sink.simple(cookie, bytes.readUInt32BE(4));
    if (target === null) this.#sink.done(cookie);
    else this.#filling = { cookie, target, done: true, filled: 0 };
    return true;
  }

  #header(queue: ByteQueue, size: number): boolean {
    const bytes = queue.take(size);
    if (bytes === null) return false;
    const extended = size === CHUNK_BYTES.extended;
    const chunk = {
      cookie: readU64(bytes, 8),
      type: bytes.readUInt16BE(6),
      length: extended ? readU64(bytes, 24) : bytes.readUInt32BE(16),
      done: (bytes.readUInt16BE(4) & CHUNK_FLAG_DONE) !== 0,
    };
    this.#sink.chunk(chunk.cookie, extended ? readU64(bytes, 16) : null);
    assertLength(chunk, this.#style);
    this.#chunk = chunk;
    return true;
  }

  #payload(queue: ByteQueue, chunk: Chunk): boolean {
    const { cookie, type, length, done } = chunk;
    const bytes = queue.take(type === CHUNK.data ? 8 : length);
    if (bytes === null) return false;
    this.#chunk = null;
    if (type === CHUNK.data) {
      const target = this.#sink.data(cookie, readU64(bytes, 0), length - 8);
      this.#filling = { cookie, target, done, filled: 0 };
      return true;
    }
    if (type === CHUNK.hole) this.#sink.hole(cookie, readU64(bytes, 0), bytes.readUInt32BE(8));
    else if (type >= 0x8000) this.#failure(chunk, bytes);
    else if (type !== CHUNK.none)
      this.#sink.status(cookie, bytes.readUInt32BE(0), decodeExtents(type, bytes));
    if (done) this.#sink.done(cookie);
    return true;
  }

  #failure(chunk: Chunk, bytes: Buffer): void {
    const text = bytes.readUInt16BE(4);
    const tail = chunk.type === CHUNK.errorOffset ? 8 : 0;
    if (6 + text + tail > bytes.length) throw protocolError('an error chunk ends within its text');
    const message = decodeString(bytes.subarray(6, 6 + text), 'the text of an error');
    const offset = tail > 0 ? readU64(bytes, 6 + text) : null;
    this.#sink.failure(chunk.cookie, bytes.readUInt32BE(0), message, offset);
  }
}

/** Whether a chunk of that type may have that many bytes; before any of them is waited for. */
function assertLength({ type, length, done }: Chunk, style: Style): void {
  const within = (least: number, most: number, step = 1) =>
    length >= least && length <= most && (length - least) % step === 0;
  const fits = (): boolean => {
    if (type === CHUNK.none) return done && length === 0;
    if (type === CHUNK.data) return within(9, 8 + MAX_PAYLOAD);
    if (type === CHUNK.hole) return length === 12;
    if (type === CHUNK.blockStatus && style === 'structured')
      return within(12, 4 + 8 * MAX_STATUS_EXTENTS, 8);
    if (type === CHUNK.blockStatusExtended && style === 'extended')
      return within(24, 8 + 16 * MAX_STATUS_EXTENTS, 16);
    // unknown kinds of errors start like the known ones
    if (type >= 0x8000) return within(type === CHUNK.errorOffset ? 14 : 6, 64 + MAX_STRING);
    throw protocolError(`a chunk of type ${type} was not agreed on`);
  };
  if (fits()) return;
  throw new NbdError('NBD_LIMIT', `a chunk of type ${type} cannot have ${length} bytes`, {
    type,
    length,
  });
}

function decodeExtents(type: number, bytes: Buffer): StatusExtent[] {
  if (type === CHUNK.blockStatus)
    return Array.from({ length: (bytes.length - 4) / 8 }, (_, index) => ({
      length: bytes.readUInt32BE(4 + 8 * index),
      status: bytes.readUInt32BE(8 + 8 * index),
    }));
  const count = (bytes.length - 8) / 16;
  if (bytes.readUInt32BE(4) !== count)
    throw protocolError('a block status chunk counts its extents wrong');
  return Array.from({ length: count }, (_, index) => ({
    length: readU64(bytes, 8 + 16 * index),
    status: readU64(bytes, 16 + 16 * index),
  }));
}
