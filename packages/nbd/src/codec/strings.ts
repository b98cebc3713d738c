import { NbdError } from '../errors.ts';
import { MAX_STRING } from '../protocol.ts';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * A string of the protocol: UTF-8 without NUL, at most 4096 bytes.
 * @throws NbdError `NBD_LIMIT` when it is longer, `NBD_PROTOCOL` when it is none
 */
export function decodeString(bytes: Uint8Array, what: string): string {
  assertLength(bytes.length, what);
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch (cause) {
    throw new NbdError('NBD_PROTOCOL', `${what} is not UTF-8`, {}, cause);
  }
  if (text.includes('\0')) throw new NbdError('NBD_PROTOCOL', `${what} has a NUL in it`);
  return text;
}

/**
 * The bytes of a string.
 * @throws NbdError `NBD_NAME` when the protocol has no room for it
 */
export function encodeString(text: string, what: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length > MAX_STRING || text.includes('\0') || !text.isWellFormed())
    throw new NbdError('NBD_NAME', `${what} must be Unicode without NUL, up to 4096 bytes`, {
      bytes: bytes.length,
    });
  return bytes;
}

/** Text for people, cut to what a message may hold. */
export function encodeMessage(text: string): Buffer {
  const plain = text.toWellFormed().replaceAll('\0', ' ');
  if (plain.length * 3 <= MAX_STRING) return Buffer.from(plain);
  // a UTF-16 unit takes 3 bytes at most; half of a pair at the cut becomes U+FFFD
  return Buffer.from(plain.slice(0, Math.floor(MAX_STRING / 3)).toWellFormed());
}

function assertLength(bytes: number, what: string): void {
  if (bytes > MAX_STRING)
    throw new NbdError('NBD_LIMIT', `${what} has ${bytes} bytes, 4096 is the most`, { bytes });
}
