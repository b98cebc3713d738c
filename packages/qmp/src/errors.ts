import { DownfoldError } from '@downfold/units';

/** QMP's classes of errors. `GenericError` unless a client must tell the case from others. */
export type QmpErrorClass =
  | 'GenericError'
  | 'CommandNotFound'
  | 'DeviceNotActive'
  | 'DeviceNotFound'
  | 'KVMMissingCap';

/** A command's failure, as it goes over the wire: `code` is the class, `message` the description. Sessions are none the worse for it. */
export class QmpError extends DownfoldError<QmpErrorClass> {
  override readonly name: string = 'QmpError';

  constructor(errorClass: QmpErrorClass, desc: string, cause?: unknown) {
    super(errorClass, desc, {}, cause);
  }
}

/**
 * Why the protocol failed, and not a command.
 * - `QMP_SYNTAX`: no JSON. `message` is what QEMU says.
 * - `QMP_TOO_LONG`, `QMP_TOO_DEEP`, `QMP_STRING_TOO_LONG`: JSON beyond the limits of the reader.
 * - `QMP_UNEXPECTED`: the other side broke the protocol.
 * - `QMP_CLOSED`: the connection is gone, or was closed here.
 * - `QMP_SLOW_READER`: too much that nobody reads waits to be read.
 * - `QMP_TOO_MANY_SESSIONS`: the server has as many sessions as it may have.
 * - `QMP_PATH_TOO_LONG`: the system takes no socket of that name.
 * - `QMP_UNSAFE_DIRECTORY`: others than its owner may get at the directory of a socket.
 * - `QMP_NOT_A_SOCKET`: at the path of the socket is something else, or somebody else's.
 * - `QMP_SOCKET_IN_USE`: another process listens there.
 * - `QMP_SOCKET`: the system refused; `cause` says why.
 */
export type QmpProtocolErrorCode =
  | 'QMP_SYNTAX'
  | 'QMP_TOO_LONG'
  | 'QMP_TOO_DEEP'
  | 'QMP_STRING_TOO_LONG'
  | 'QMP_UNEXPECTED'
  | 'QMP_CLOSED'
  | 'QMP_SLOW_READER'
  | 'QMP_TOO_MANY_SESSIONS'
  | 'QMP_PATH_TOO_LONG'
  | 'QMP_UNSAFE_DIRECTORY'
  | 'QMP_NOT_A_SOCKET'
  | 'QMP_SOCKET_IN_USE'
  | 'QMP_SOCKET';

/** A failure of framing, of a connection or of a socket. */
export class QmpProtocolError extends DownfoldError<QmpProtocolErrorCode> {
  override readonly name: string = 'QmpProtocolError';
}
