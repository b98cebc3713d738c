import { NbdError, protocolError } from '../errors.ts';
import { COMMAND, COMMAND_FLAG, MAGIC, MAX_PAYLOAD } from '../protocol.ts';
import type { ByteQueue } from './byte-queue.ts';
import { readU64, writeU64 } from './words.ts';

const COMPACT_BYTES = 28;
const EXTENDED_BYTES = 32;

/** Header of a request, as a client makes it. */
export interface RequestHeader {
  /** One of `COMMAND`. */
  readonly command: number;
  /** Bits of `COMMAND_FLAG`. */
  readonly flags: number;
  /** Names the request in its replies: a whole number up to 2^53-1, other than those of all requests in flight. */
  readonly cookie: number;
  /** Bytes from the start of the export. */
  readonly offset: number;
  /** Bytes the request is about; with `COMMAND_FLAG.payloadLength`, bytes of the payload. Compact headers hold up to 2^32-1. */
  readonly length: number;
}

/** A request as a server got it. */
export interface Request {
  readonly command: number;
  readonly flags: number;
  /** `Infinity` above 2^53-1. */
  readonly offset: number;
  /** `Infinity` above 2^53-1. */
  readonly length: number;
  /** `null` when the request carries none. */
  readonly payload: Buffer | null;
  /** Cookie and offset as they were sent, 16 bytes: replies repeat them. */
  readonly tag: Buffer;
}

/** The bytes of a header; a payload follows them as it is. */
export function encodeRequestHeader(header: RequestHeader, extended: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(extended ? EXTENDED_BYTES : COMPACT_BYTES);
  bytes.writeUInt32BE(extended ? MAGIC.extendedRequest : MAGIC.request, 0);
  bytes.writeUInt16BE(header.flags, 4);
  bytes.writeUInt16BE(header.command, 6);
  writeU64(bytes, 8, header.cookie);
  writeU64(bytes, 16, header.offset);
  if (extended) writeU64(bytes, 24, header.length);
  else bytes.writeUInt32BE(header.length, 24);
  return bytes;
}

/** Bytes of the header of a request. */
export function headerBytes(extended: boolean): number {
  return extended ? EXTENDED_BYTES : COMPACT_BYTES;
}

/** Whether a request may begin at byte `at`. */
export function isRequest(bytes: Buffer, at: number, extended: boolean): boolean {
  return bytes.readUInt32BE(at) === (extended ? MAGIC.extendedRequest : MAGIC.request);
}

/** What the header at byte `at` says of the length. */
export function lengthAt(bytes: Buffer, at: number, extended: boolean): number {
  return extended ? readU64(bytes, at + 24) : bytes.readUInt32BE(at + 24);
}

/** Bytes of the payload that follows the header at byte `at`. */
export function payloadAt(bytes: Buffer, at: number, extended: boolean): number {
  const carries = extended
    ? (bytes.readUInt16BE(at + 4) & COMMAND_FLAG.payloadLength) !== 0
    : bytes.readUInt16BE(at + 6) === COMMAND.write;
  return carries ? lengthAt(bytes, at, extended) : 0;
}

/** Takes requests with their payloads from a queue. */
export class RequestDecoder {
  readonly #extended: boolean;
  #header: Buffer | null = null;

  /** @param extended whether extended headers were negotiated */
  constructor(extended: boolean) {
    this.#extended = extended;
  }

  /** Whether a request has begun that is not complete. */
  get isInside(): boolean {
    return this.#header !== null;
  }

  /**
   * The next request, or `null` when more bytes are needed.
   * @throws NbdError `NBD_PROTOCOL` for garbage, `NBD_LIMIT` for a payload above 32 MiB
   */
  next(queue: ByteQueue): Request | null {
    this.#header ??= this.#start(queue);
    const header = this.#header;
    if (header === null) return null;
    const payload = payloadAt(header, 0, this.#extended);
    const bytes = payload === 0 ? null : queue.take(payload);
    if (bytes === null && payload > 0) return null;
    this.#header = null;
    return {
      flags: header.readUInt16BE(4),
      command: header.readUInt16BE(6),
      offset: readU64(header, 16),
      length: lengthAt(header, 0, this.#extended),
      payload: bytes,
      tag: header.subarray(8, 24),
    };
  }

  #start(queue: ByteQueue): Buffer | null {
    const header = queue.take(headerBytes(this.#extended));
    if (header === null) return null;
    if (!isRequest(header, 0, this.#extended))
      throw protocolError('a request does not start with its magic');
    const payload = payloadAt(header, 0, this.#extended);
    if (payload > MAX_PAYLOAD)
      throw new NbdError('NBD_LIMIT', `a request has a payload of ${payload} bytes`, { payload });
    return header;
  }
}
