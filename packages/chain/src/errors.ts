import { DownfoldError } from '@downfold/units';

/**
 * Why a chain could not be opened or analysed.
 * - `CHAIN_OUTSIDE_ROOTS`: a backing file lies (after links) outside the allowed directories.
 * - `CHAIN_FORBIDDEN_NAME`: a protocol or `json:` name, control characters, or an empty name.
 * - `CHAIN_NO_FORMAT`: a backing reference without a format; nothing is probed. The message names the fix.
 * - `CHAIN_UNKNOWN_FORMAT`: a format that was not passed in.
 * - `CHAIN_LOOP`: an image backs itself, directly or not (by device and inode).
 * - `CHAIN_SHARED_DATA`: the external data file of an image is another image as well, or another one's data file.
 * - `CHAIN_TOO_DEEP`: more layers than the policy allows.
 * - `CHAIN_MISSING`: a backing file is not there.
 * - `CHAIN_AMBIGUOUS`: an image was named by a link, and beside the link lies another file of its backing file's name than beside the image.
 * - `CHAIN_TWO_FORMATS`: an overlay says that an image of the pool is of another format than it looks, and as what it looks it has a backing file.
 * - `CHAIN_INVALID_IMAGE`: an image is marked invalid or superseded.
 * - `CHAIN_REMOTE_LOCK`: an image lies where locks may exclude nobody, and nobody said what to do then.
 * - `CHAIN_NOT_IN_CHAIN`: a name given by the user is no layer of the chain.
 * - `CHAIN_STRANDED`: the operation would change what other images read; `details.stranded` lists them.
 */
export type ChainErrorCode =
  | 'CHAIN_OUTSIDE_ROOTS'
  | 'CHAIN_FORBIDDEN_NAME'
  | 'CHAIN_NO_FORMAT'
  | 'CHAIN_UNKNOWN_FORMAT'
  | 'CHAIN_LOOP'
  | 'CHAIN_SHARED_DATA'
  | 'CHAIN_TOO_DEEP'
  | 'CHAIN_MISSING'
  | 'CHAIN_AMBIGUOUS'
  | 'CHAIN_TWO_FORMATS'
  | 'CHAIN_INVALID_IMAGE'
  | 'CHAIN_REMOTE_LOCK'
  | 'CHAIN_NOT_IN_CHAIN'
  | 'CHAIN_STRANDED';

/** Every failure about who backs whom. `details.image` names the image it was found in. */
export class ChainError extends DownfoldError<ChainErrorCode> {
  override readonly name: string = 'ChainError';
}

/** Two images with one file for their data: what one of them writes changes the other. */
export function sharedDataFile(image: string, other: string): ChainError {
  return new ChainError(
    'CHAIN_SHARED_DATA',
    `${image}: its data file is ${other}, or the data file of that; two images cannot keep their data in one file`,
    { image, other },
  );
}
