import { DownfoldError } from '@downfold/units';
import type { Errno } from './protocol.ts';

/**
 * Why an NBD connection, request or server failed.
 * - `NBD_PROTOCOL`: the peer broke the protocol; the connection is dropped.
 * - `NBD_LIMIT`: the peer asks for more than a limit allows; the connection is dropped.
 * - `NBD_CONNECT`: no connection: refused, closed during the handshake, or the handshake took too long.
 * - `NBD_REFUSED`: the server refused an option; `details.reply` is its reply type, `details.reason` its text.
 * - `NBD_TLS`: TLS is required and absent, or its handshake failed.
 * - `NBD_INSECURE`: TCP without TLS anywhere but on a loopback address.
 * - `NBD_LISTEN`: the server cannot listen there.
 * - `NBD_NAME`: an export name that is taken, unknown, or no string of the protocol.
 * - `NBD_CLOSED`: the connection or the server is closed, or closing.
 * - `NBD_ERRNO`: an operation failed; `details.errno` is the protocol's error. An export rejects with it to choose
 *   what the client is told, a client's call rejects with what it was told.
 * - `NBD_RANGE`: a request outside of the export, not aligned, or longer than the peer takes. Nothing was sent.
 * - `NBD_UNSUPPORTED`: the peer did not offer the ability. Nothing was sent.
 */
export type NbdErrorCode =
  | 'NBD_PROTOCOL'
  | 'NBD_LIMIT'
  | 'NBD_CONNECT'
  | 'NBD_REFUSED'
  | 'NBD_TLS'
  | 'NBD_INSECURE'
  | 'NBD_LISTEN'
  | 'NBD_NAME'
  | 'NBD_CLOSED'
  | 'NBD_ERRNO'
  | 'NBD_RANGE'
  | 'NBD_UNSUPPORTED';

/** Every failure that this package reports. */
export class NbdError extends DownfoldError<NbdErrorCode> {
  override readonly name: string = 'NbdError';
}

/** What an export rejects with to choose the error, and the text, that its client is told. */
export function errnoError(errno: Errno, message: string, cause?: unknown): NbdError {
  return new NbdError('NBD_ERRNO', message, { errno }, cause);
}

/** The peer broke the protocol. */
export function protocolError(message: string): NbdError {
  return new NbdError('NBD_PROTOCOL', message);
}
