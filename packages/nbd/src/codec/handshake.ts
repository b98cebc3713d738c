import { NbdError, protocolError } from '../errors.ts';
import { HANDSHAKE_MAGIC, MAX_OPTION } from '../protocol.ts';
import type { ByteQueue } from './byte-queue.ts';
import { isMagic, writeMagic } from './words.ts';

/** Bytes of the server's first message. */
export const GREETING_BYTES = 18;
const OPTION_BYTES = 16;
const OPTION_REPLY_BYTES = 20;
/** An option with more data than this is not skipped either: its sender is dropped. */
const MAX_SKIPPED = 32 * 1024 * 1024;

/** The server's first message. @param flags bits of `HANDSHAKE_FLAG` */
export function encodeGreeting(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(GREETING_BYTES);
  writeMagic(bytes, 0, HANDSHAKE_MAGIC.greeting);
  writeMagic(bytes, 8, HANDSHAKE_MAGIC.option);
  bytes.writeUInt16BE(flags, 16);
  return bytes;
}

/**
 * The handshake flags of a newstyle server.
 * @throws NbdError `NBD_UNSUPPORTED` for an oldstyle server, `NBD_PROTOCOL` for anything else
 */
export function decodeGreeting(bytes: Buffer): number {
  if (!isMagic(bytes, 0, HANDSHAKE_MAGIC.greeting)) throw protocolError('this is no NBD server');
  if (isMagic(bytes, 8, HANDSHAKE_MAGIC.oldstyle))
    throw new NbdError('NBD_UNSUPPORTED', 'the server speaks the oldstyle protocol only');
  if (!isMagic(bytes, 8, HANDSHAKE_MAGIC.option)) throw protocolError('this is no NBD server');
  return bytes.readUInt16BE(16);
}

/** The client's answer to the greeting. @param flags bits of `HANDSHAKE_FLAG` */
export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(flags, 0);
  return bytes;
}

/** An option of the client. @param data at most 2^32-1 bytes */
export function encodeOption(option: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.allocUnsafe(OPTION_BYTES);
  writeMagic(header, 0, HANDSHAKE_MAGIC.option);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/** An option as the server got it; `data` is `null` when there was too much of it to look at. */
export interface OptionRequest {
  readonly option: number;
  readonly data: Buffer | null;
}

/** Takes options from a queue. Keeps at most one header; what is too large is skipped as it comes. */
export class OptionDecoder {
  #header: { readonly option: number; readonly length: number } | null = null;
  #toSkip = 0;

  /**
   * The next option, or `null` when more bytes are needed.
   * @throws NbdError `NBD_PROTOCOL` for garbage, `NBD_LIMIT` for data above 32 MiB
   */
  next(queue: ByteQueue): OptionRequest | null {
    this.#header ??= this.#start(queue);
    if (this.#header === null) return null;
    const { option, length } = this.#header;
    if (length > MAX_OPTION) {
      this.#toSkip -= queue.discard(this.#toSkip);
      if (this.#toSkip > 0) return null;
      this.#header = null;
      return { option, data: null };
    }
    const data = queue.take(length);
    if (data !== null) this.#header = null;
    return data === null ? null : { option, data };
  }

  #start(queue: ByteQueue): { option: number; length: number } | null {
    const bytes = queue.take(OPTION_BYTES);
    if (bytes === null) return null;
    if (!isMagic(bytes, 0, HANDSHAKE_MAGIC.option))
      throw protocolError('an option does not start with its magic');
    const length = bytes.readUInt32BE(12);
    if (length > MAX_SKIPPED)
      throw new NbdError('NBD_LIMIT', `an option has ${length} bytes of data`, { length });
    this.#toSkip = length;
    return { option: bytes.readUInt32BE(8), length };
  }
}

/** A reply of the server to an option. */
export function encodeOptionReply(
  option: number,
  reply: number,
  data: Uint8Array = Buffer.alloc(0),
): Buffer {
  const header = Buffer.allocUnsafe(OPTION_REPLY_BYTES);
  writeMagic(header, 0, HANDSHAKE_MAGIC.optionReply);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(reply, 12);
  header.writeUInt32BE(data.length, 16);
  return Buffer.concat([header, data]);
}

/** A reply to an option as the client got it. */
export interface OptionReply {
  readonly option: number;
  readonly reply: number;
  readonly data: Buffer;
}

/** Takes replies to options from a queue. */
export class OptionReplyDecoder {
  #header: { readonly option: number; readonly reply: number; readonly length: number } | null =
    null;

  /**
   * The next reply, or `null` when more bytes are needed.
   * @throws NbdError `NBD_PROTOCOL` for garbage, `NBD_LIMIT` for data above 64 KiB
   */
  next(queue: ByteQueue): OptionReply | null {
    this.#header ??= this.#start(queue);
    if (this.#header === null) return null;
    const { option, reply, length } = this.#header;
    const data = queue.take(length);
    if (data === null) return null;
    this.#header = null;
    return { option, reply, data };
  }

  #start(queue: ByteQueue): { option: number; reply: number; length: number } | null {
    const bytes = queue.take(OPTION_REPLY_BYTES);
    if (bytes === null) return null;
    if (!isMagic(bytes, 0, HANDSHAKE_MAGIC.optionReply))
      throw protocolError('a reply to an option does not start with its magic');
    const length = bytes.readUInt32BE(16);
    if (length > MAX_OPTION)
      throw new NbdError('NBD_LIMIT', `a reply to an option has ${length} bytes`, { length });
    return { option: bytes.readUInt32BE(8), reply: bytes.readUInt32BE(12), length };
  }
}
