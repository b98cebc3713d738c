import { DownfoldError } from '@downfold/units';

/**
 * Why an image could not be opened, read, written or created.
 * - `IMAGE_NOT_RECOGNISED`: the magic is not the format's.
 * - `IMAGE_CORRUPT`: metadata breaks the format's rules (unaligned, reserved bits, past the end, overlapping, ...).
 * - `IMAGE_UNSUPPORTED`: a feature of the format that Downfold does not have; `details.feature` names it.
 * - `IMAGE_LIMIT`: legal, but above a limit set for safety; `details.limit` and `details.found`.
 * - `IMAGE_NEEDS_REPAIR`: opened for writing while marked corrupt, or dirty and worse than its refcounts can tell; a repair of more is needed first.
 * - `IMAGE_SECRET_NEEDED`: guest data is encrypted, and no secret was given; `IMAGE_WRONG_SECRET`: the one that was given opens none of its key slots.
 * - `IMAGE_READ_ONLY`: a change to an image opened for reading.
 * - `IMAGE_RANGE`: outside the virtual disk.
 * - `IMAGE_NO_ROOM`: the header has no free place for a new backing reference or mark.
 * - `IMAGE_NO_SPACE`: the format cannot address more host clusters (not the host's ENOSPC: that is a StorageError).
 * - `IMAGE_CLOSED`: used after it was closed.
 */
export type ImageErrorCode =
  | 'IMAGE_NOT_RECOGNISED'
  | 'IMAGE_CORRUPT'
  | 'IMAGE_UNSUPPORTED'
  | 'IMAGE_LIMIT'
  | 'IMAGE_NEEDS_REPAIR'
  | 'IMAGE_SECRET_NEEDED'
  | 'IMAGE_WRONG_SECRET'
  | 'IMAGE_READ_ONLY'
  | 'IMAGE_RANGE'
  | 'IMAGE_NO_ROOM'
  | 'IMAGE_NO_SPACE'
  | 'IMAGE_CLOSED';

/** Every failure of a format. `details.image` names the file, `details.offset` the byte where there is one. */
export class ImageError extends DownfoldError<ImageErrorCode> {
  override readonly name: string = 'ImageError';
}
