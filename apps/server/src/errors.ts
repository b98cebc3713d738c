import { DownfoldError } from '@downfold/units';

/**
 * Why the server refused something that was asked of it by an option or a command.
 * - `SERVER_USAGE`: the command line itself is wrong.
 * - `SERVER_NODE`: a node that is there already, is not there, or cannot be what it shall be.
 * - `SERVER_IN_USE`: something uses it.
 * - `SERVER_SUPERSEDED`: the image is not the disk any more; `details.successor` is.
 * - `SERVER_UNCHECKED`: an image that would be written failed its check.
 * - `SERVER_EXPORT`: an export, or the NBD server, is there already or is not there.
 * - `SERVER_OBJECT`: keys, certificates or secrets that cannot be used.
 * - `SERVER_SECRET`: an encrypted image without its secret, or with another one.
 * - `SERVER_DATA_FILE`: an image with an external data file, which was not allowed.
 * - `SERVER_UNSUPPORTED`: QEMU has it, this server does not.
 */
export type ServerErrorCode =
  | 'SERVER_USAGE'
  | 'SERVER_NODE'
  | 'SERVER_IN_USE'
  | 'SERVER_SUPERSEDED'
  | 'SERVER_UNCHECKED'
  | 'SERVER_EXPORT'
  | 'SERVER_OBJECT'
  | 'SERVER_SECRET'
  | 'SERVER_DATA_FILE'
  | 'SERVER_UNSUPPORTED';

/** A refusal; nothing changed. Over QMP a `GenericError`. */
export class ServerError extends DownfoldError<ServerErrorCode> {
  override readonly name: string = 'ServerError';
}
